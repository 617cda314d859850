//! `lifeboat completions`: what a shell needs to complete the command line, made of the same definitions as the parser.

use crate::commands::page;
use clap::{Args, Command};
use clap_complete::Shell;
use host::exit;

/// The arguments of `lifeboat completions`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "bash: lifeboat completions bash > /etc/bash_completion.d/lifeboat\n\
                        zsh:  lifeboat completions zsh > \"${fpath[1]}/_lifeboat\"\n\
                        fish: lifeboat completions fish > ~/.config/fish/completions/lifeboat.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints it and returns the exit code.
pub fn run(args: &CompletionsArgs, definition: Command) -> u8 {
    match page::print(&script(args.shell, definition)) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("lifeboat completions: standard output: {error}");
            exit::NO
        }
    }
}

/// The script for one shell.
fn script(shell: Shell, mut definition: Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition, "lifeboat", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::{CommandFactory, ValueEnum};
    use std::process;

    #[test]
    fn every_shell_is_told_of_every_subcommand() {
        for shell in Shell::value_variants() {
            let script = script(*shell, Cli::command());
            for command in Cli::command().get_subcommands().map(Command::get_name) {
                assert!(script.contains(command), "{shell}: {command} is not completed");
            }
            assert!(script.contains("state-dir"), "{shell}: flags are not completed");
        }
    }

    #[test]
    fn bash_can_read_its_script_and_completes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lifeboat.bash");
        std::fs::write(&file, script(Shell::Bash, Cli::command())).unwrap();
        let completes = r#"set -eu; . "$1"; COMP_WORDS=(lifeboat time); COMP_CWORD=1; _lifeboat lifeboat time lifeboat
                           printf '%s\n' "${COMPREPLY[@]}""#;
        let bash = process::Command::new("bash")
            .args(["--norc", "-c", completes, "bash"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(bash.status.success(), "{}", String::from_utf8_lossy(&bash.stderr));
        assert_eq!(String::from_utf8_lossy(&bash.stdout), "timeline\n");
    }
}
