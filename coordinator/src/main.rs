//! `coordinator`: the command line of Polestar.

fn main() -> std::process::ExitCode {
    polestar_coordinator::cli::main()
}
