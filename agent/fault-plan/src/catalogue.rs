//! Every kind of fault there is: parsing is checked against it, a test drills each line that the drill understands, and
//! the simulation's coverage counts each that it does.

mod agent;
mod cluster;
mod engine;
mod notice;
mod store;

use crate::entry::{Argument, Entry, Level, Object, When};

/// A kind of which only the name is known; both levels understand it.
const PLAIN: Entry = Entry {
    name: "",
    target: "",
    outcome: "",
    example: "",
    what: "",
    tries: "",
    object: Object::None,
    argument: Argument::None,
    counted: false,
    when: When::Never,
    lasting: false,
    default_lasts: None,
    unknown_to: None,
};

/// A fault that lasts for some time, five seconds unless it says otherwise.
const SPELL: Entry =
    Entry { counted: true, when: When::Time, lasting: true, default_lasts: Some(5), ..PLAIN };

/// Why the drill lacks what only the simulation does.
const fn not_drilled(why: &'static str) -> Option<(Level, &'static str)> {
    Some((Level::Drill, why))
}

/// Why the simulation lacks what only the drill does.
const fn not_simulated(why: &'static str) -> Option<(Level, &'static str)> {
    Some((Level::Simulation, why))
}

/// Every kind, in the order in which they are listed.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    let tables = [
        notice::NOTICES,
        notice::POLLS,
        cluster::API,
        cluster::WATCH,
        store::TABLE,
        agent::TABLE,
        engine::TABLE,
        cluster::OTHERS,
    ];
    tables.into_iter().flatten()
}

/// The kind of this name.
pub fn named(name: &str) -> Option<&'static Entry> {
    entries().find(|entry| entry.name == name)
}

/// The kinds that a level understands, for people; then those it does not, with the reason.
pub fn listing(level: Level) -> String {
    let mut text = String::new();
    for entry in entries().filter(|entry| entry.not_at(level).is_none()) {
        text.push_str(&format!("\n  {}\n      {}\n      tries {}\n", entry.example, entry.what, entry.tries));
    }
    text.push_str(&format!("\nNot for {level}:\n"));
    for entry in entries() {
        if let Some(why) = entry.not_at(level) {
            text.push_str(&format!("  {:<26} {why}\n", entry.example));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_every_line_says_what_it_does_and_tries() {
        let mut names = BTreeSet::new();
        let mut texts = BTreeSet::new();
        for entry in entries() {
            assert!(names.insert(entry.name), "{} is there twice", entry.name);
            assert!(texts.insert((entry.target, entry.outcome)), "{} is there twice", entry.example);
            assert!(!entry.what.is_empty() && !entry.tries.is_empty(), "{}", entry.name);
            assert!(entry.unknown_to.is_none_or(|(_, why)| why.len() > 10), "{}", entry.name);
            assert_eq!(named(entry.name), Some(entry));
        }
    }

    #[test]
    fn a_listing_holds_every_kind_once_with_its_reason_where_it_is_not_understood() {
        for level in [Level::Simulation, Level::Drill] {
            let text = listing(level);
            let (here, elsewhere) = text.split_once("\nNot for ").unwrap();
            for entry in entries() {
                let own_line = format!("\n  {}\n", entry.example);
                match entry.not_at(level) {
                    None => assert!(here.contains(&own_line), "{} at {level}", entry.name),
                    Some(why) => {
                        assert!(
                            elsewhere.contains(entry.example) && elsewhere.contains(why),
                            "{}",
                            entry.name
                        );
                        assert!(!here.contains(&own_line), "{} at {level}", entry.name);
                    }
                }
            }
        }
    }
}
