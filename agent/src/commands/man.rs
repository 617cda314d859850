//! `lifeboat man`: the manual pages, made of the same definitions as the parser and `--help`.

use crate::commands::page;
use clap::{Args, Command};
use host::exit;
use std::io;
use std::path::{Path, PathBuf};

/// The arguments of `lifeboat man`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Read it at once: lifeboat man | man -l -")]
pub struct ManArgs {
    /// Write a page for lifeboat and one for each subcommand into this folder, such as
    /// /usr/local/share/man/man1, instead of the first one to standard output
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// Writes them and returns the exit code.
pub fn run(args: &ManArgs, definition: Command) -> u8 {
    // Without `help`, of which there is no page.
    let definition = definition.disable_help_subcommand(true);
    let (place, written) = match &args.dir {
        Some(folder) => (folder.display().to_string(), write(folder, definition)),
        None => ("standard output".to_owned(), first(definition).and_then(|text| page::print(&text))),
    };
    match written {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("lifeboat man: {place}: {error}");
            exit::NO
        }
    }
}

/// The page of `lifeboat` itself.
fn first(definition: Command) -> io::Result<String> {
    let mut text = Vec::new();
    clap_mangen::Man::new(definition).render(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// All pages, in a folder that is made if need be.
fn write(folder: &Path, definition: Command) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(definition, folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;
    use std::collections::BTreeSet;
    use std::process;

    fn definition() -> Command {
        Cli::command().disable_help_subcommand(true)
    }

    /// The names of the pages that there must be: of the command and of all below it that are shown.
    fn wanted(command: &Command, name: &str, found: &mut BTreeSet<String>) {
        found.insert(format!("{name}.1"));
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            wanted(below, &format!("{name}-{}", below.get_name()), found);
        }
    }

    #[test]
    fn every_subcommand_has_a_page_and_no_page_is_left_over() {
        let folder = tempfile::tempdir().unwrap();
        let pages = folder.path().join("share/man/man1");
        write(&pages, definition()).unwrap();
        let there: BTreeSet<_> = std::fs::read_dir(&pages)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut all = BTreeSet::new();
        wanted(&Cli::command(), "lifeboat", &mut all);
        assert!(all.contains("lifeboat-checkpoints-verify.1"), "{all:?}");
        assert_eq!(there, all);
        for page in all {
            let text = std::fs::read_to_string(pages.join(&page)).unwrap();
            assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{page}:\n{text}");
        }
        let run = std::fs::read_to_string(pages.join("lifeboat-run.1")).unwrap();
        assert!(run.contains("LIFEBOAT_STORE"), "settings are named by their environment, too:\n{run}");
    }

    #[test]
    fn a_page_that_is_referred_to_is_there() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), definition()).unwrap();
        let named = std::fs::read_to_string(folder.path().join("lifeboat.1")).unwrap();
        assert_eq!(named, first(definition()).unwrap());
        let named: Vec<_> = named.split_whitespace().filter(|word| word.ends_with("(1)")).collect();
        assert!(named.len() > 5, "{named:?}");
        for name in named {
            let page = name.replace('\\', "").replace("(1)", ".1");
            assert!(folder.path().join(&page).exists(), "{name} is referred to, and there is no {page}");
        }
    }

    #[test]
    fn groff_has_nothing_to_say_of_any_page() {
        if process::Command::new("groff").arg("--version").output().is_err() {
            eprintln!("groff is not installed: skipped");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), definition()).unwrap();
        for page in std::fs::read_dir(folder.path()).unwrap() {
            let page = page.unwrap().path();
            let read =
                process::Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(&page).output();
            let read = read.unwrap();
            let said = String::from_utf8_lossy(&read.stderr);
            assert!(read.status.success() && said.is_empty(), "{}: {said}", page.display());
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(write(&file.path().join("man1"), definition()).is_err());
        assert_eq!(run(&ManArgs { dir: Some(file.path().join("man1")) }, definition()), exit::NO);
    }
}
