//! Who of several acts: the holder of one Lease, as `k8s.io/client-go/tools/leaderelection` has it.
//!
//! Decides, and does nothing. No two clocks are compared: a contender takes the Lease over when it has not seen it
//! change for the whole of its duration, by its own monotonic clock; the leader ceases to act when its last write that
//! was acknowledged *began* longer ago than [`RENEWED_WITHIN`], which is shorter. In between nobody leads. Two that lead
//! at once, as after a stop of the whole process, would do nothing twice that counts: a gate opens once.
//!
//! Our own, as no maintained crate fits: kube-leader-election 0.44 wants kube 4, kubert 0.25 kube 1.1, and here it is 5.

use evacuation::moment::{Moment, Span};

/// A Lease that has not changed for this long is nobody's.
pub const DURATION: Span = Span::from_secs(15);
/// A leader whose renewal is older than this leads no more.
pub const RENEWED_WITHIN: Span = Span::from_secs(10);
/// Between two looks at the Lease.
pub const PERIOD: Span = Span::from_secs(2);

/// The Lease as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// `holderIdentity`; empty where its holder has let go of it.
    pub holder: String,
    /// What changes with every write: its resourceVersion.
    pub version: String,
}

/// What to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionStep {
    /// There is none: write it, only if there still is none.
    Create,
    /// It is nobody's: write it, only if it is still that.
    Take,
    /// It is ours: write it, only if it is still that.
    Renew,
    /// It is another's.
    Wait,
}

/// One contender's view.
#[derive(Clone, Debug)]
pub struct Election {
    me: String,
    /// The version last seen, and since when it has not changed.
    seen: Option<(String, Moment)>,
    /// When the last write of ours that was acknowledged began.
    renewed: Option<Moment>,
}

impl Election {
    /// A contender of this name: no two may share one.
    pub fn new(me: impl Into<String>) -> Self {
        Self { me: me.into(), seen: None, renewed: None }
    }

    /// Its name.
    pub fn me(&self) -> &str {
        &self.me
    }

    /// What to do, having read `held`.
    pub fn look(&mut self, now: Moment, held: Option<&Held>) -> ElectionStep {
        let Some(held) = held else {
            self.seen = None;
            self.renewed = None;
            return ElectionStep::Create;
        };
        if held.holder == self.me {
            return ElectionStep::Renew;
        }
        self.renewed = None;
        if held.holder.is_empty() {
            return ElectionStep::Take;
        }
        match &self.seen {
            Some((version, since)) if *version == held.version => {
                if now.since(*since) >= DURATION {
                    return ElectionStep::Take;
                }
            }
            _ => self.seen = Some((held.version.clone(), now)),
        }
        ElectionStep::Wait
    }

    /// A write that began then was acknowledged: the Lease is ours.
    pub fn wrote(&mut self, began: Moment) {
        self.seen = None;
        self.renewed = Some(began);
    }

    /// It may act.
    pub fn leads(&self, now: Moment) -> bool {
        now < self.leads_until()
    }

    /// Until when it may act if nothing more comes; a moment that has passed if it may not.
    pub fn leads_until(&self) -> Moment {
        self.renewed.map_or(Moment::from_millis(0), |renewed| renewed + RENEWED_WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One Lease with optimistic concurrency, as the API server has it.
    #[derive(Default)]
    struct Server {
        lease: Option<Held>,
        version: u64,
    }

    impl Server {
        /// A write that names what it was made from.
        fn write(&mut self, holder: &str, from: Option<&Held>) -> bool {
            let lost = self.lease.as_ref() != from;
            if !lost {
                self.version += 1;
                self.lease = Some(Held { holder: holder.into(), version: self.version.to_string() });
            }
            !lost
        }
    }

    fn at(ms: u64) -> Moment {
        Moment::from_millis(50_000 + ms)
    }

    /// One turn of a contender.
    fn turn(election: &mut Election, server: &mut Server, now: Moment) {
        let read = server.lease.clone();
        act(election, server, read.as_ref(), now);
    }

    fn act(election: &mut Election, server: &mut Server, read: Option<&Held>, now: Moment) {
        let step = election.look(now, read);
        if step != ElectionStep::Wait && server.write(&election.me.clone(), read) {
            election.wrote(now);
        }
    }

    #[test]
    fn of_two_that_begin_at_once_one_leads() {
        let (mut a, mut b, mut server) = (Election::new("a"), Election::new("b"), Server::default());
        // Both have read that there is none before either writes.
        act(&mut a, &mut server, None, at(0));
        act(&mut b, &mut server, None, at(0));
        assert!(a.leads(at(1)) && !b.leads(at(1)));
        for second in 1..100 {
            let now = at(second * 1000);
            turn(&mut a, &mut server, now);
            turn(&mut b, &mut server, now);
            assert!(a.leads(now) && !b.leads(now), "after {second} s");
        }
    }

    #[test]
    fn a_leader_that_dies_is_followed_after_the_duration_and_never_earlier() {
        let (mut a, mut b, mut server) = (Election::new("a"), Election::new("b"), Server::default());
        turn(&mut a, &mut server, at(0));
        turn(&mut b, &mut server, at(1000));
        let died = 0;
        let mut led = None;
        for ms in (1000..40_000).step_by(100) {
            let now = at(ms);
            turn(&mut b, &mut server, now);
            assert!(!(a.leads(now) && b.leads(now)), "two lead after {ms} ms");
            if b.leads(now) {
                led.get_or_insert(ms);
            }
        }
        let led = led.unwrap();
        assert_eq!(led, died + 1000 + DURATION.as_millis());
    }

    #[test]
    fn a_leader_that_cannot_write_stops_before_another_may_begin() {
        let (mut a, mut b, mut server) = (Election::new("a"), Election::new("b"), Server::default());
        turn(&mut a, &mut server, at(0));
        // The best case for a rival: it saw that write at the very same moment.
        turn(&mut b, &mut server, at(0));
        let stops = (0..60_000).find(|ms| !a.leads(at(*ms))).unwrap();
        let begins = (0..60_000).find(|ms| {
            turn(&mut b, &mut server, at(*ms));
            b.leads(at(*ms))
        });
        assert!(stops + 1000 < begins.unwrap(), "{stops} {begins:?}");
    }

    #[test]
    fn a_lease_that_is_renewed_is_never_taken() {
        let (mut a, mut b, mut server) = (Election::new("a"), Election::new("b"), Server::default());
        for ms in (0..200_000).step_by(500) {
            let now = at(ms);
            // It is slow, but within its time.
            if ms % 9500 == 0 {
                turn(&mut a, &mut server, now);
            }
            turn(&mut b, &mut server, now);
            assert!(a.leads(now) && !b.leads(now), "after {ms} ms");
        }
    }

    #[test]
    fn what_its_holder_let_go_of_is_taken_at_once() {
        let (mut a, mut b, mut server) = (Election::new("a"), Election::new("b"), Server::default());
        turn(&mut a, &mut server, at(0));
        turn(&mut b, &mut server, at(10));
        let held = server.lease.clone();
        assert!(server.write("", held.as_ref()));
        turn(&mut b, &mut server, at(20));
        assert!(b.leads(at(20)));
        // And the one that let go sees another's.
        turn(&mut a, &mut server, at(30));
        assert!(!a.leads(at(30)));
    }

    #[test]
    fn of_two_that_take_over_at_once_one_leads() {
        let mut server = Server::default();
        let mut dead = Election::new("dead");
        turn(&mut dead, &mut server, at(0));
        let (mut a, mut b) = (Election::new("a"), Election::new("b"));
        turn(&mut a, &mut server, at(0));
        turn(&mut b, &mut server, at(0));
        let then = at(DURATION.as_millis());
        let read = server.lease.clone();
        act(&mut a, &mut server, read.as_ref(), then);
        act(&mut b, &mut server, read.as_ref(), then);
        assert!(a.leads(then) && !b.leads(then));
    }

    #[test]
    fn a_lease_that_somebody_deleted_is_written_anew() {
        let (mut a, mut server) = (Election::new("a"), Server::default());
        turn(&mut a, &mut server, at(0));
        server.lease = None;
        turn(&mut a, &mut server, at(2000));
        assert!(a.leads(at(2000)));
    }
}
