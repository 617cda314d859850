//! The agent itself: killed, its tasks panic, its answers late or doubled.

use super::{PLAIN, not_drilled, not_simulated};
use crate::entry::{Entry, When};

/// What befalls answers inside the agent.
const ANSWER: Entry = Entry {
    target: "answer",
    counted: true,
    when: When::Time,
    unknown_to: not_drilled("the real executor answers once and in time: its own tests show it"),
    ..PLAIN
};

/// The table.
pub const TABLE: &[Entry] = &[
    Entry {
        name: "agent-kill",
        target: "agent",
        outcome: "kill",
        example: "agent=kill@step:commit",
        what: "the leaving node's agent gets SIGKILL; the kubelet starts it again after 0.5 s",
        tries: "7: it goes on with the original deadline and loses no committed work",
        when: When::NeedsTimeOrStep,
        ..PLAIN
    },
    Entry {
        name: "agent-b-kill",
        target: "agent-b",
        outcome: "kill",
        example: "agent-b=kill@step:fetch",
        what: "the replacement node's agent gets SIGKILL; the kubelet starts it again after 0.5 s",
        tries: "6: restored once, by the agent that was started again",
        when: When::NeedsTimeOrStep,
        unknown_to: not_simulated("one agent evacuates and restores there: agent=kill@step:fetch"),
        ..PLAIN
    },
    Entry {
        name: "task-panics",
        target: "task",
        outcome: "panics",
        example: "task=panics*2@5s",
        what: "the task of an effect panics after it has done its work",
        tries: "8: a panic is an answer as any other",
        counted: true,
        when: When::Time,
        unknown_to: not_drilled("the real tasks do not panic on demand; the executor's own tests make one"),
        ..PLAIN
    },
    Entry {
        name: "answer-late",
        outcome: "late",
        example: "answer=late*4@5s",
        what: "an answer comes after its effect's deadline",
        tries: "3: late answers are counted and ignored",
        ..ANSWER
    },
    Entry {
        name: "answer-twice",
        outcome: "twice",
        example: "answer=twice*4@5s",
        what: "an answer comes a second time, a while later",
        tries: "8: the second one is counted and ignored",
        ..ANSWER
    },
];
