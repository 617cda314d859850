//! Engines that hang, lie, talk nonsense or begin anew; a volume that cannot be written.

use super::{PLAIN, not_drilled};
use crate::entry::{Entry, Object, When};

/// A fault of one pod's engine.
const ENGINE: Entry =
    Entry { target: "engine", object: Object::Pod, when: When::Time, lasting: true, ..PLAIN };

const FIGURES: Option<(crate::Level, &str)> =
    not_drilled("its engines give true figures; it lies about files instead: engine=lies");

/// The table.
pub const TABLE: &[Entry] = &[
    Entry {
        name: "engine-hang",
        outcome: "hang",
        example: "engine:gold=hang",
        what: "the pod's engine takes requests and never answers",
        tries: "3: only this pod's state is lost, and it leaves in time",
        ..ENGINE
    },
    Entry {
        name: "engine-lies",
        outcome: "lies",
        example: "engine:gold=lies",
        what: "the pod's engine reports files that it did not write",
        tries: "5: nothing is committed that is not there",
        ..ENGINE
    },
    Entry {
        name: "engine-boasts",
        outcome: "boasts",
        example: "engine:gold=boasts",
        what: "the pod's engine says that it has, and has written, more bytes than exist anywhere",
        tries: "8: a figure is not trusted, and no sum of it wraps",
        unknown_to: FIGURES,
        ..ENGINE
    },
    Entry {
        name: "engine-denies",
        outcome: "denies",
        example: "engine:gold=denies",
        what: "the pod's engine says that it has no state, and flushes some all the same",
        tries: "4: what was not planned for still ends by the deadline",
        unknown_to: FIGURES,
        ..ENGINE
    },
    Entry {
        name: "engine-busy",
        outcome: "busy",
        example: "engine:gold=busy",
        what: "the pod's engine says at every look that it works on a request",
        tries: "4: it is waited for until the last safe moment, no longer",
        unknown_to: FIGURES,
        ..ENGINE
    },
    Entry {
        name: "engine-html",
        outcome: "html",
        example: "engine:gold=html",
        what: "the pod's engine answers with a web page",
        tries: "8: it is an engine that cannot be spoken to, nothing worse",
        ..ENGINE
    },
    Entry {
        name: "engine-restarts",
        outcome: "restarts",
        example: "engine:gold=restarts@1s",
        what: "the pod's engine crashes and its container is started again, without its state",
        tries: "3: an empty engine does not overwrite what was saved, and nobody waits",
        lasting: false,
        ..ENGINE
    },
    Entry {
        name: "engine-other-weights",
        outcome: "other-weights",
        example: "engine:gold=other-weights",
        what: "the replacement runs other weights under the same name and arguments",
        tries: "6: the restore is refused by name",
        when: When::Never,
        lasting: false,
        ..ENGINE
    },
    Entry {
        name: "hold-fails",
        target: "hold",
        outcome: "fails",
        example: "hold:gold=fails",
        what: "the pod's hold file cannot be written",
        tries: "2: a pod that cannot be held is evicted after its save, not before",
        object: Object::Pod,
        when: When::Time,
        lasting: true,
        unknown_to: not_drilled("its volumes are ordinary directories of the same user"),
        ..PLAIN
    },
];
