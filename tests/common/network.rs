//! Two hosts of this machine: network namespaces, each with an address and a shared memory of its own, and a cable
//! between them that a test can cut, or have lose packets, or be long.
//!
//! The cable is this process: each host's interface is a TUN device, and what one of them sends is handed to the other
//! here. No kernel module for bad networks is needed, every packet is counted, and what is lost is drawn from a seed.

use super::{Running, Sandbox, join_line};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    io::Errno,
    ioctl,
};
use std::{
    collections::VecDeque,
    fs::File,
    os::fd::{AsFd, OwnedFd},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// What the cable does to packets, and what it did.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Nothing gets through.
    cut: AtomicBool,
    /// How many of a thousand packets are lost.
    per_mille_lost: AtomicU32,
    /// Milliseconds that each packet takes.
    delay: AtomicU32,
    lost: AtomicU64,
    delayed: AtomicU64,
    /// Bytes that arrived, by who sent them.
    carried: [AtomicU64; 2],
}

impl Line {
    pub(crate) fn cut(&self, cut: bool) {
        self.cut.store(cut, SeqCst);
    }

    pub(crate) fn lose(&self, per_mille: u32) {
        self.per_mille_lost.store(per_mille, SeqCst);
    }

    pub(crate) fn delay(&self, time: Duration) {
        self.delay.store(time.as_millis() as u32, SeqCst);
    }

    /// Packets that never arrived.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(SeqCst)
    }

    /// Packets that arrived late.
    pub(crate) fn delayed(&self) -> u64 {
        self.delayed.load(SeqCst)
    }

    /// Bytes that went over, by who sent them.
    pub(crate) fn carried(&self) -> [u64; 2] {
        [0, 1].map(|side: usize| self.carried[side].load(SeqCst))
    }

    /// Whether a packet arrives, at the moment when it is sent.
    fn takes(&self, random: &mut ChaCha8Rng) -> bool {
        let lost = random.random_range(0..1000) < self.per_mille_lost.load(SeqCst);
        let takes = !lost && !self.cut.load(SeqCst);
        self.lost.fetch_add(u64::from(!takes), SeqCst);
        takes
    }
}

/// The two ends, of which one can be plugged into another host.
type Ends = [Mutex<Arc<OwnedFd>>; 2];

/// A cable between two interfaces, for as long as this lives.
pub(crate) struct Cable {
    pub(crate) line: Arc<Line>,
    ends: Arc<Ends>,
    over: Arc<AtomicBool>,
    carriers: Vec<JoinHandle<()>>,
}

impl Cable {
    fn between(a: &Host, b: &Host) -> Cable {
        let line = Arc::new(Line::default());
        let ends: Arc<Ends> = Arc::new([a, b].map(|host| Mutex::new(Arc::clone(&host.device))));
        let over = Arc::<AtomicBool>::default();
        let carriers = [0, 1].map(|from| {
            let (line, ends, over) = (Arc::clone(&line), Arc::clone(&ends), Arc::clone(&over));
            std::thread::spawn(move || carry(from, &line, &ends, &over))
        });
        Cable {
            line,
            ends,
            over,
            carriers: carriers.into(),
        }
    }

    /// Puts the far end into another host. The one that had it is heard of no more: it says no goodbye.
    pub(crate) fn plug_into(&self, host: &Host) {
        *self.ends[1].lock().expect("carriers don't panic") = Arc::clone(&host.device);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        for carrier in self.carriers.drain(..) {
            carrier.join().expect("it only carries");
        }
    }
}

/// Carries packets in one direction.
fn carry(from: usize, line: &Line, ends: &Ends, over: &AtomicBool) {
    const LOOK: Duration = Duration::from_millis(20);
    let mut random = ChaCha8Rng::seed_from_u64(from as u64);
    let mut underway: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut packet = vec![0; 1 << 16];
    let end = |side: usize| Arc::clone(&ends[side].lock().expect("carriers don't panic"));
    while !over.load(SeqCst) {
        let (near, far) = (end(from), end(1 - from));
        let due = underway
            .front()
            .map(|(due, _)| due.saturating_duration_since(Instant::now()));
        let wait = due.unwrap_or(LOOK).min(LOOK);
        let wait = Timespec::try_from(wait).expect("it is short");
        let mut ready = [PollFd::new(&*near, PollFlags::IN)];
        // One that is interrupted only looks sooner.
        let _ = poll(&mut ready, Some(&wait));
        let delay = Duration::from_millis(line.delay.load(SeqCst).into());
        loop {
            let length = match rustix::io::read(&*near, &mut packet[..]) {
                Ok(length) => length,
                Err(Errno::INTR) => continue,
                // Nothing more for now, or no host any more.
                Err(Errno::AGAIN | Errno::BADFD) => break,
                Err(error) => panic!("a TUN device can't be read: {error}"),
            };
            if line.takes(&mut random) {
                line.delayed.fetch_add(u64::from(!delay.is_zero()), SeqCst);
                underway.push_back((Instant::now() + delay, packet[..length].to_vec()));
            }
        }
        while underway
            .front()
            .is_some_and(|(due, _)| *due <= Instant::now())
        {
            let (_, packet) = underway.pop_front().expect("just seen");
            match rustix::io::write(&*far, &packet) {
                Ok(_) => line.carried[from].fetch_add(packet.len() as u64, SeqCst),
                // An interface that is full or gone takes no packet, as on any network.
                Err(_) => line.lost.fetch_add(1, SeqCst),
            };
        }
    }
}

/// A network namespace, for as long as this lives.
pub(crate) struct Host {
    name: String,
    pub(crate) interface: String,
    address: &'static str,
    device: Arc<OwnedFd>,
}

impl Drop for Host {
    fn drop(&mut self) {
        // What can't be removed is told by the next test that wants the name.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// What the kernel takes to make a TUN device: `struct ifreq`.
#[repr(C)]
#[allow(dead_code, reason = "the kernel reads it")]
struct DeviceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// A network device whose other end is a descriptor: packets, without a header.
fn tun(name: &str) -> Result<OwnedFd, String> {
    const TUN: u16 = 0x0001;
    const NO_HEADER: u16 = 0x1000;
    /// `TUNSETIFF`.
    const SET_INTERFACE: ioctl::Opcode = ioctl::opcode::write::<i32>(b'T', 202);
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/net/tun", flags, Mode::empty());
    let device = device.map_err(|error| format!("/dev/net/tun: {error}"))?;
    let mut request = DeviceRequest {
        name: [0; 16],
        flags: TUN | NO_HEADER,
        rest: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads a `struct ifreq`, which `DeviceRequest` is by size and layout, and writes its name back.
    let made = unsafe {
        let set = ioctl::Updater::<SET_INTERFACE, DeviceRequest>::new(&mut request);
        ioctl::ioctl(device.as_fd(), set)
    };
    made.map_err(|error| format!("TUNSETIFF: {error}"))?;
    Ok(device)
}

impl Host {
    /// One whose interface leads nowhere yet.
    pub(crate) fn new(which: &str, address: &'static str) -> Result<Host, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can make network namespaces".to_owned());
        }
        // Tests run side by side, in one process or in several.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, SeqCst);
        let process = std::process::id();
        let interface = format!("ps{process}{which}{number}");
        let host = Host {
            name: format!("polestar-{process}-{which}-{number}"),
            device: Arc::new(tun(&interface)?),
            interface,
            address,
        };
        let (name, interface) = (&host.name, &host.interface);
        ip(&["netns", "add", name])?;
        ip(&["link", "set", interface, "netns", name])?;
        let network = format!("{}/24", host.address);
        ip(&["-n", name, "addr", "add", &network, "dev", interface])?;
        for interface in ["lo", interface] {
            ip(&["-n", name, "link", "set", interface, "up"])?;
        }
        Ok(host)
    }

    /// A command of the shell on this host, which shares no memory with the other.
    pub(crate) fn shell(&self, sandbox: &Sandbox, line: &str) -> Command {
        let line = format!("mount -t tmpfs tmpfs /dev/shm && exec {line}");
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name, "sh", "-c", &line])
            .env("TMPDIR", sandbox.path(""))
            .stdin(Stdio::null());
        command
    }

    /// A worker on this host, started with the line that a launch printed, from another folder.
    pub(crate) fn join(&self, sandbox: &Sandbox, line: &str) -> Running {
        let mut worker = self.shell(sandbox, line);
        worker.current_dir("/");
        Running::start(worker)
    }
}

/// Two hosts, `a` and `b`, and the cable between them.
pub(crate) struct Network {
    // It goes before what it is plugged into.
    pub(crate) cable: Cable,
    pub(crate) a: Host,
    pub(crate) b: Host,
}

impl Network {
    pub(crate) fn new() -> Result<Network, String> {
        let (a, b) = (Host::new("a", "10.99.7.1")?, Host::new("b", "10.99.7.2")?);
        let cable = Cable::between(&a, &b);
        Ok(Network { cable, a, b })
    }

    /// A launch on `a` of the sandbox's sweep for two workers that train together. Returns it, and the line that starts
    /// a worker.
    pub(crate) fn launch(&self, sandbox: &Sandbox, store: &str) -> (Running, String) {
        let printed = sandbox.path(&format!("printed-{store}"));
        let program = env!("CARGO_BIN_EXE_coordinator");
        let line = format!(
            "{program} launch sweep.toml --store {store} --listen {}:0 --token-file token --workers 2 --workers-per-trial 2",
            self.a.interface
        );
        let mut launch = self.a.shell(sandbox, &line);
        launch
            .current_dir(sandbox.path(""))
            .stdout(File::create(&printed).expect("writable"));
        let mut launch = Running::start(launch);
        launch.wait_for("waiting for workers");
        let line = join_line(&std::fs::read_to_string(&printed).expect("it is there"));
        (launch, line)
    }
}
