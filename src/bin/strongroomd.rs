//! The daemon: hands over to `server`.

fn main() -> std::process::ExitCode {
    strongroom::server::main()
}
