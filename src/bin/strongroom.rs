//! The command line: hands over to `cli`.

fn main() -> std::process::ExitCode {
    strongroom::cli::main()
}
