//! Looks at the queue, has the pool's account of it say what to do, and does it.

use super::{
    super::LaunchEvent,
    calls::{Call, CallError, Commands, arrays},
    folder::Folder,
    parse,
    pool::{Action, Happened, Pool, Start},
    state::TaskId,
};
use polestar_core::chain;
use std::time::Duration;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// Longest wait after a submission that failed, and the first one.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// Between two looks when the end is waited for.
const CLOSING_POLL: Duration = Duration::from_secs(1);

/// What the launcher asks of its keeper.
#[derive(Debug)]
pub(super) enum Order {
    /// Have so many workers.
    Scale(u32),
    /// End a start's workers, if they don't end by themselves.
    Retire(Start),
    /// End everything, and say how many jobs did not end by themselves in time.
    Close {
        grace: Duration,
        reply: oneshot::Sender<usize>,
    },
}

/// How it goes about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    /// How often it looks at the queue.
    pub(super) poll: Duration,
    /// The most tasks that the cluster takes in one array.
    pub(super) largest_array: u32,
}

/// The one that talks to SLURM.
pub(super) struct Keeper<C> {
    commands: C,
    pool: Pool,
    folder: Folder,
    name: String,
    habits: Habits,
    events: mpsc::UnboundedSender<LaunchEvent>,
    began: Instant,
    next_look: Instant,
    /// Nothing is submitted before then.
    submit_from: Instant,
    /// Wait after the next submission that fails.
    wait: Duration,
    /// The last look failed, which has been told.
    blind: bool,
}

impl<C: Commands> Keeper<C> {
    pub(super) fn new(
        commands: C,
        pool: Pool,
        folder: Folder,
        habits: Habits,
        events: mpsc::UnboundedSender<LaunchEvent>,
    ) -> Keeper<C> {
        let now = Instant::now();
        Keeper {
            commands,
            pool,
            name: folder.job_name("workers"),
            folder,
            habits,
            events,
            began: now,
            next_look: now + habits.poll,
            submit_from: now,
            wait: FIRST_WAIT,
            blind: false,
        }
    }

    /// Serves until it is told to close, or nobody can give orders any more.
    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    None => return,
                    Some(Order::Scale(workers)) => {
                        self.pool.scale(workers);
                        self.next_look = Instant::now();
                    }
                    Some(Order::Retire(start)) => self.pool.retire(start, self.began.elapsed()),
                    Some(Order::Close { grace, reply }) => {
                        let left = self.close(grace).await;
                        // Whoever asked may have given up waiting.
                        let _ = reply.send(left);
                        return;
                    }
                },
                () = tokio::time::sleep_until(self.next_look) => {
                    self.turn().await;
                    self.next_look = Instant::now() + self.habits.poll;
                }
            }
        }
    }

    /// One look at the queue, and what follows from it. Nothing follows from a look that fails.
    async fn turn(&mut self) -> bool {
        let rows = self.commands.run(Call::queue(&[&self.name])).await;
        let rows = match rows.and_then(|said| parse::queue(&said)) {
            Ok(rows) => rows,
            Err(error) => {
                if !std::mem::replace(&mut self.blind, true) {
                    tracing::warn!(
                        "the queue can't be looked at; it is tried again, and nothing is concluded until then: {}",
                        chain(&error)
                    );
                }
                return false;
            }
        };
        self.blind = false;
        let happened = self.pool.observe(&rows);
        self.tell(happened);
        self.look_up().await;
        for action in self.pool.plan(self.began.elapsed()) {
            match action {
                Action::Submit(tasks) => self.submit(tasks).await,
                Action::Withdraw(tasks) => self.cancel(&tasks, "PENDING").await,
                Action::End(tasks) => self.cancel(&tasks, "RUNNING").await,
            }
        }
        true
    }

    fn tell(&self, happened: Vec<Happened>) {
        // Starts first: so it is seen that none of them came after an end in the same look, as of tasks whose node broke.
        let is_start = |happened: &Happened| matches!(happened, Happened::Started(_));
        let (started, others): (Vec<_>, Vec<_>) = happened.into_iter().partition(is_start);
        for happened in started.into_iter().chain(others) {
            match happened {
                Happened::Started(start) => {
                    for process in 0..self.pool.each() {
                        let launch = start.launch(process);
                        self.say(LaunchEvent::Started { launch });
                    }
                }
                Happened::Ended(start, outcome) => self.ended(start, &outcome),
                Happened::NeverRan(tasks, outcome) => {
                    let names: Vec<String> = tasks.iter().map(TaskId::to_string).collect();
                    let message = format!("{} never ran: {outcome}", names.join(", "));
                    self.say(LaunchEvent::Failed { message });
                }
            }
        }
    }

    fn ended(&self, start: Start, outcome: &str) {
        let TaskId { job, task } = start.task;
        let tail = task.map(|task| self.folder.log_tail(job, task));
        for process in 0..self.pool.each() {
            self.say(LaunchEvent::Ended {
                launch: start.launch(process),
                status: format!("job {}, {outcome}", start.task),
                // The workers of a job have one log.
                log_tail: match process {
                    0 => tail.clone().unwrap_or_default(),
                    _ => String::new(),
                },
            });
        }
    }

    fn say(&self, event: LaunchEvent) {
        // Nobody listens any more when the pool is closed.
        let _ = self.events.send(event);
    }

    /// Asks the accounts for tasks that the queue has forgotten. Not every cluster has accounts.
    async fn look_up(&mut self) {
        let forgotten = self.pool.forgotten();
        if forgotten.is_empty() {
            return;
        }
        let said = self.commands.run(Call::history(&forgotten)).await;
        let accounts = match &said {
            Ok(said) => parse::history(said),
            Err(error) => {
                tracing::info!("no accounts of jobs: {error}");
                Vec::new()
            }
        };
        for id in forgotten {
            let happened = self.pool.forget(id, &accounts);
            self.tell(happened);
        }
    }

    async fn submit(&mut self, tasks: u32) {
        if Instant::now() < self.submit_from {
            return;
        }
        for size in arrays(tasks, self.habits.largest_array) {
            let call = Call::submit_array(&self.folder.workers_script(), size);
            let said = self.commands.run(call).await;
            match said.and_then(|said| parse::submitted(&said)) {
                Ok(job) => {
                    tracing::info!(job, tasks = size, "submitted");
                    self.pool.submitted(job, size);
                    self.wait = FIRST_WAIT;
                }
                Err(error) => return self.not_submitted(&error),
            }
        }
    }

    /// Workers that are there go on, and so does a cluster that is only busy; all else is for whoever started this.
    fn not_submitted(&mut self, error: &CallError) {
        let wait = self.wait;
        self.submit_from = Instant::now() + wait;
        self.wait = (2 * wait).min(LONGEST_WAIT);
        if error.is_temporary() || !self.pool.is_empty() {
            let seconds = wait.as_secs();
            tracing::warn!(
                "workers can't be submitted, tried again in {seconds} s: {}",
                chain(error)
            );
        } else {
            // Whoever is told waits by itself before it asks again.
            self.submit_from = Instant::now();
            let message = chain(error);
            self.say(LaunchEvent::Failed { message });
        }
    }

    async fn cancel(&self, tasks: &[TaskId], state: &str) {
        if let Err(error) = self.commands.run(Call::cancel(tasks, state)).await {
            // Most often it has ended in between; else the next look shows it still there.
            tracing::info!("scancel: {error}");
        }
    }

    /// Withdraws what waits, waits for what runs, and ends what is left then.
    async fn close(mut self, grace: Duration) -> usize {
        let until = Instant::now() + grace;
        self.pool.scale(0);
        loop {
            let seen = self.turn().await;
            if seen && self.pool.is_empty() {
                return 0;
            }
            let next = Instant::now() + CLOSING_POLL.min(self.habits.poll);
            if next >= until {
                break;
            }
            tokio::time::sleep_until(next).await;
        }
        let running = self.pool.running();
        let by_name = Call::cancel_all(&self.name);
        if let Err(error) = self.commands.run(by_name).await {
            tracing::warn!(
                "jobs may be left; `scancel --name={}` ends them: {}",
                self.name,
                chain(&error)
            );
        }
        running.len()
    }
}

#[cfg(test)]
mod tests;
