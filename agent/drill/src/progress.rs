//! The live story on standard error: one line that is drawn again and again on a terminal (the timeline follows
//! at the end), one line for each happening otherwise.

use super::chronicle::Happening;
use evacuation::moment::{Moment, Span};
use host::clock;
use parking_lot::Mutex;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The longest live line, in characters.
const LINE: usize = 100;

/// Marks a moment on the drill's own time line: seconds after the notice, or before it.
pub fn stamp(at: Moment, zero: Option<Moment>) -> String {
    match zero {
        None => "         ".to_owned(),
        Some(zero) => format!("T{:+8.2}", (at.as_millis() as f64 - zero.as_millis() as f64) / 1000.0),
    }
}

/// Writes the story as it happens.
#[derive(Debug)]
pub struct Progress {
    zero: Arc<OnceLock<Moment>>,
    terminal: bool,
    /// The live line.
    line: Mutex<String>,
}

impl Progress {
    /// A story of the drill whose notice appears at `zero`.
    pub fn new(zero: Arc<OnceLock<Moment>>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { zero, terminal, line: Mutex::default() }
    }

    /// Something happens.
    pub fn hear(&self, happening: &Happening) {
        let at = stamp(happening.at, self.zero.get().copied());
        let line = format!("{at}  {:<24} {}", happening.subject, happening.what);
        if !self.terminal {
            // Nobody is told if standard error is closed.
            let _ = writeln!(std::io::stderr(), "{line}");
        } else if happening.trouble {
            let _ = writeln!(std::io::stderr(), "\r\x1b[K\x1b[33m{line}\x1b[0m");
        } else {
            self.draw(line);
        }
    }

    /// Keeps the live line alive: the time that is left of the window.
    pub fn count_down(self: &Arc<Self>, window: Span) -> tokio::task::JoinHandle<()> {
        let progress = Arc::clone(self);
        tokio::spawn(async move {
            if !progress.terminal {
                return;
            }
            loop {
                if let Some(zero) = progress.zero.get() {
                    let left = (*zero + window).left(clock::now());
                    let line = progress.line.lock().clone();
                    let left = left.as_millis() as f64 / 1000.0;
                    let _ = write!(std::io::stderr(), "\r\x1b[K{left:5.1} s left  {line}");
                    let _ = std::io::stderr().flush();
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    }

    /// Takes the live line away.
    pub fn rest(&self) {
        if self.terminal {
            self.draw(String::new());
        }
    }

    fn draw(&self, line: String) {
        // Longer lines would wrap and could not be drawn over.
        let line: String = line.chars().take(LINE).collect();
        let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
        let _ = std::io::stderr().flush();
        *self.line.lock() = line;
    }
}
