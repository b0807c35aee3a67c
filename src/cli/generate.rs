//! What packages install beside the program: completions and manual pages, made from the one tree of arguments.
//!
//! Leans on clap_complete and clap_mangen. Made on demand, by a hidden command, so that no build pays for it.

use clap::CommandFactory;

use super::args::{Arguments, GenerateCommand};
use super::failure::Failure;
use super::output::Output;

/// Runs a `generate` command.
pub(super) fn run(command: &GenerateCommand, output: &mut Output) -> Result<(), Failure> {
    let mut tree = Arguments::command();
    match command {
        GenerateCommand::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut tree, "strongroom", &mut script);
            output.text(&String::from_utf8_lossy(&script))
        }
        GenerateCommand::Man { directory } => {
            let written =
                std::fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(tree, directory));
            written.map_err(|error| {
                Failure::system(
                    format_args!("cannot write manual pages to '{}'", directory.display()),
                    &error,
                )
            })
        }
    }
}
