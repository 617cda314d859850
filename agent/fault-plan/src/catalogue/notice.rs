//! Notices that are late, doubled, moved, taken back; IMDS that does not answer.

use super::{PLAIN, SPELL, not_drilled, not_simulated};
use crate::entry::{Argument, Entry, When};

/// What IMDS shows.
pub const NOTICES: &[Entry] = &[
    Entry {
        name: "notice-late",
        target: "notice",
        outcome: "late",
        example: "notice=late:10s",
        what: "only so much time is left when the notice appears",
        tries: "4: by the deadline everything is gone, deleted at its cut-off or abandoned with a reason",
        argument: Argument::Span,
        ..PLAIN
    },
    Entry {
        name: "notice-past",
        target: "notice",
        outcome: "past",
        example: "notice=past:1s",
        what: "the notice's time passed so long ago when it appears",
        tries: "4: the node is evacuated all the same, with the least window",
        argument: Argument::Span,
        unknown_to: not_drilled("its verdict counts from a time that is still to come"),
        ..PLAIN
    },
    Entry {
        name: "notice-repeated",
        target: "notice",
        outcome: "repeated",
        example: "notice=repeated",
        what: "every poll shows a new body with a later time, as amazon-ec2-metadata-mock does by default",
        tries: "7: one evacuation with one deadline, the first",
        ..PLAIN
    },
    Entry {
        name: "notice-doubled",
        target: "notice",
        outcome: "doubled",
        example: "notice=doubled",
        what: "the same notice is told twice at once, and again and again",
        tries: "7: one evacuation with one deadline",
        unknown_to: not_drilled("its IMDS shows the same body at every poll anyway"),
        ..PLAIN
    },
    Entry {
        name: "notice-nearer",
        target: "notice",
        outcome: "nearer",
        example: "notice=nearer:20s@10s",
        what: "a second notice leaves only so much time",
        tries: "4: the earlier deadline holds",
        argument: Argument::Span,
        when: When::NeedsTime,
        unknown_to: not_drilled("its IMDS shows one notice"),
        ..PLAIN
    },
    Entry {
        name: "notice-withdrawn",
        target: "notice",
        outcome: "withdrawn",
        example: "notice=withdrawn@5s",
        what: "the notice is gone again (404)",
        tries: "1: what has begun ends well, nothing more begins, and the node is uncordoned only after a while",
        when: When::NeedsTime,
        ..PLAIN
    },
    Entry {
        name: "notice-back",
        target: "notice",
        outcome: "back",
        example: "notice=back@8s",
        what: "a notice that was withdrawn is shown again, with its old time",
        tries: "7: the evacuation goes on with its original deadline",
        when: When::NeedsTime,
        unknown_to: not_drilled("its IMDS shows one notice"),
        ..PLAIN
    },
    Entry {
        name: "notice-anew",
        target: "notice",
        outcome: "anew",
        example: "notice=anew@8s",
        what: "after a notice was withdrawn another one comes, with a time of its own",
        tries: "4: a second evacuation begins, with its own deadline",
        when: When::NeedsTime,
        unknown_to: not_drilled("its IMDS shows one notice"),
        ..PLAIN
    },
    Entry {
        name: "kind-stop",
        target: "kind",
        outcome: "stop",
        example: "kind=stop",
        what: "the instance stops, and boots again after the evacuation under another boot id",
        tries: "1: the cordon, the taint and the annotation are taken back after the boot, not before",
        ..PLAIN
    },
    Entry {
        name: "kind-hibernate",
        target: "kind",
        outcome: "hibernate",
        example: "kind=hibernate",
        what: "the instance hibernates: there are no two minutes",
        tries: "2: nothing is evicted, what is flushed is committed",
        ..PLAIN
    },
    Entry {
        name: "kind-drill",
        target: "kind",
        outcome: "drill",
        example: "kind=drill",
        what: "somebody rehearses an evacuation on a node that stays (lifeboat drill --node)",
        tries: "1: the whole evacuation, and the mark is taken back as soon as its report is written",
        unknown_to: not_drilled("its node is interrupted"),
        ..PLAIN
    },
    Entry {
        name: "kind-terminate",
        target: "kind",
        outcome: "terminate",
        example: "kind=terminate",
        what: "the instance is terminated: the default, spelt out",
        tries: "4: the whole evacuation",
        ..PLAIN
    },
    Entry {
        name: "rebalance-first",
        target: "rebalance",
        outcome: "first",
        example: "rebalance=first:3s",
        what: "a rebalance recommendation comes so long before the notice",
        tries: "10: what was copied early is not sent again, and the notice finds the node already softly tainted",
        argument: Argument::Span,
        ..PLAIN
    },
    Entry {
        name: "rebalance-only",
        target: "rebalance",
        outcome: "only",
        example: "rebalance=only",
        what: "a rebalance recommendation comes and no notice ever follows",
        tries: "9: nothing is evicted, and no trace is left after its time",
        ..PLAIN
    },
    Entry {
        name: "maintenance-far",
        target: "maintenance",
        outcome: "far",
        example: "maintenance=far:180s",
        what: "instead of the notice, maintenance is announced so far ahead that nothing is evicted yet",
        tries: "4: the evacuation begins when its time has come",
        argument: Argument::Span,
        unknown_to: not_drilled("it would take longer than a drill"),
        ..PLAIN
    },
    Entry {
        name: "maintenance-near",
        target: "maintenance",
        outcome: "near",
        example: "maintenance=near:90s",
        what: "instead of the notice, maintenance is announced for so soon that the evacuation begins",
        tries: "4: by its time everything is gone, deleted at its cut-off or abandoned with a reason",
        argument: Argument::Span,
        unknown_to: not_drilled("its scene is an interruption; the testbed plays maintenance"),
        ..PLAIN
    },
    Entry {
        name: "maintenance-also",
        target: "maintenance",
        outcome: "also",
        example: "maintenance=also:90s@5s",
        what: "beside whatever else is announced, maintenance is, and sometimes is cancelled again",
        tries: "1: each announcement counts for itself: what ends the instance first rules, and one that is taken back takes no other with it",
        argument: Argument::Span,
        when: When::NeedsTime,
        unknown_to: not_drilled("its scene is an interruption; the testbed plays maintenance"),
        ..PLAIN
    },
    Entry {
        name: "maintenance-cancelled",
        target: "maintenance",
        outcome: "cancelled",
        example: "maintenance=cancelled@10s",
        what: "instead of the notice, maintenance is announced for far ahead, and cancelled",
        tries: "9: nothing is evicted, and no trace is left",
        when: When::NeedsTime,
        unknown_to: not_drilled("its scene is an interruption; the testbed plays maintenance"),
        ..PLAIN
    },
];

/// How it is read.
pub const POLLS: &[Entry] = &[
    Entry {
        name: "imds-down",
        target: "imds",
        outcome: "down",
        example: "imds=down@0s+5s",
        what: "IMDS refuses connections",
        tries: "8: the poll goes on, and the evacuation does not need IMDS once the notice was seen",
        ..SPELL
    },
    Entry {
        name: "imds-503",
        target: "imds",
        outcome: "503",
        example: "imds=503@0s+5s",
        what: "IMDS answers 503 to everything",
        tries: "8: an error is not a withdrawn notice",
        unknown_to: NO_POLL,
        ..SPELL
    },
    Entry {
        name: "imds-garbage",
        target: "imds",
        outcome: "garbage",
        example: "imds=garbage@0s+5s",
        what: "IMDS answers 200 with bytes that are no JSON",
        tries: "8: nonsense neither crashes the agent nor starts or ends an evacuation",
        unknown_to: NO_POLL,
        ..SPELL
    },
    Entry {
        name: "imds-hang",
        target: "imds",
        outcome: "hang",
        example: "imds=hang@0s+5s",
        what: "IMDS accepts the request and never answers",
        tries: "8: a poll is bounded",
        unknown_to: NO_POLL,
        ..SPELL
    },
    Entry {
        name: "imds-401",
        target: "imds",
        outcome: "401",
        example: "imds=401*2",
        what: "the token is no longer valid",
        tries: "8: a new token is fetched and the notice is seen",
        unknown_to: NO_POLL,
        ..SPELL
    },
];

const NO_POLL: Option<(crate::Level, &str)> =
    not_simulated("to the core every failed poll is the same, imds=down: nothing is told until it ends");
