//! What the drill's own hands did, in words. What its agents did is in their journals.

use evacuation::moment::Moment;
use host::clock;
use parking_lot::Mutex;
use serde::Serialize;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Happening {
    /// When.
    pub at: Moment,
    /// To what: a pod's name, a node's name, `IMDS`.
    pub subject: String,
    /// What.
    pub what: String,
    /// Something went wrong, on purpose or not.
    pub trouble: bool,
}

/// Listens to what happens, as it happens.
pub type Listener = Box<dyn Fn(&Happening) + Send + Sync>;

/// The chronicle of one drill.
pub struct Chronicle {
    happenings: Mutex<Vec<Happening>>,
    listener: Listener,
}

impl Chronicle {
    /// An empty chronicle; `listener` hears every entry, and what is passed on.
    pub fn new(listener: Listener) -> Self {
        Self { happenings: Mutex::default(), listener }
    }

    /// It happens now.
    pub fn say(&self, subject: &str, what: impl Into<String>) {
        self.add(Happening {
            at: clock::now(),
            subject: subject.to_owned(),
            what: what.into(),
            trouble: false,
        });
    }

    /// Trouble happens now.
    pub fn warn(&self, subject: &str, what: impl Into<String>) {
        self.add(Happening {
            at: clock::now(),
            subject: subject.to_owned(),
            what: what.into(),
            trouble: true,
        });
    }

    /// Passes on what an agent did, and does not keep it.
    pub fn pass_on(&self, happening: &Happening) {
        (self.listener)(happening);
    }

    fn add(&self, happening: Happening) {
        self.pass_on(&happening);
        self.happenings.lock().push(happening);
    }

    /// Everything that is kept.
    pub fn all(&self) -> Vec<Happening> {
        self.happenings.lock().clone()
    }
}

impl std::fmt::Debug for Chronicle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chronicle").field("happenings", &self.happenings).finish_non_exhaustive()
    }
}
