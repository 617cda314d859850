//! How much of the most valuable state is saved, beside an offline optimum and what people do without lifeboat.
//!
//! Value is lexicographic by tier: one PriorityClass value. A draw is a node whose states are between a third of what the
//! link can carry in the two minutes and six times that; where everything fits, or nothing, all ways are the same.
//! `LIFEBOAT_VALUE_DRAWS=n` sets how many are drawn; `tests/bench core` prints the table of 4,000 draws.

mod baselines;
mod draw;
mod field;
mod optimum;

use draw::Draw;
use std::collections::BTreeMap;

/// Bytes that are whole in the store, by PriorityClass value, the highest first.
pub type Value = Vec<(i32, u64)>;

/// Sums the bytes of those that are `whole`, by tier.
pub fn value(draw: &Draw, whole: &[bool]) -> Value {
    let mut tiers: BTreeMap<i32, u64> = draw.pods.iter().map(|pod| (-pod.priority, 0)).collect();
    for (pod, whole) in draw.pods.iter().zip(whole) {
        if *whole {
            *tiers.entry(-pod.priority).or_default() += pod.bytes;
        }
    }
    tiers.into_iter().map(|(priority, bytes)| (-priority, bytes)).collect()
}

/// How one way of saving compares with the optimum, over many draws.
#[derive(Debug, Default)]
struct Score {
    draws: u32,
    /// As many leading tiers whole as the optimum has.
    same: u32,
    /// Draws in which the optimum has a tier that is not whole, and we have those before it.
    compared: u32,
    /// Our bytes of that tier by the optimum's, summed.
    share: f64,
    worst: f64,
}

impl Score {
    fn take(&mut self, draw: &Draw, ours: &Value, best: &optimum::Best) {
        let all = value(draw, &vec![true; draw.pods.len()]);
        let whole = ours.iter().zip(&all).take_while(|(ours, all)| ours == all).count();
        self.draws += 1;
        if self.draws == 1 {
            self.worst = 1.0;
        }
        if whole < best.whole {
            return;
        }
        self.same += 1;
        if let (Some(next), Some((_, bytes))) = (best.next, ours.get(best.whole))
            && next > 0
        {
            // Without cut-offs a baseline can have more than the optimum, until its node is gone.
            let share = (*bytes as f64 / next as f64).min(1.0);
            self.compared += 1;
            self.share += share;
            self.worst = self.worst.min(share);
        }
    }

    fn same(&self) -> f64 {
        f64::from(self.same) / f64::from(self.draws.max(1))
    }

    fn share(&self) -> f64 {
        self.share / f64::from(self.compared.max(1))
    }

    fn print(&self, name: &str) {
        println!(
            "  {name:<30}{:>12.3}{:>22.3}{:>12.3}{:>10}",
            self.same(),
            self.share(),
            self.worst,
            self.compared
        );
    }
}

/// A number from the environment.
#[expect(clippy::disallowed_methods, reason = "the benchmark draws more than the test")]
fn draws() -> u64 {
    std::env::var("LIFEBOAT_VALUE_DRAWS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000)
}

fn scores(most: usize, best: fn(&Draw) -> optimum::Best) -> [Score; 3] {
    let mut scores = <[Score; 3]>::default();
    for seed in 0..draws() {
        let draw = Draw::new(seed, most);
        let best = best(&draw);
        scores[0].take(&draw, &value(&draw, &field::run(&draw)), &best);
        scores[1].take(&draw, &value(&draw, &baselines::all_at_once(&draw)), &best);
        scores[2].take(&draw, &value(&draw, &baselines::kubelet_tiers(&draw)), &best);
    }
    scores
}

fn judge(title: &str, scores: &[Score; 3]) {
    println!("\n{title}, {} draws:", scores[0].draws);
    println!("  {:<30}{:>12}{:>22}{:>12}{:>10}", "", "same tiers", "of its bytes after", "worst", "draws");
    scores[0].print("lifeboat");
    scores[1].print("everything at once");
    scores[2].print("tiers as the kubelet's");
    assert!(scores[0].compared > 50, "too few draws are short of time: {}", scores[0].compared);
    assert!(scores[0].same() >= 0.95, "{:?}", scores[0]);
    assert!(scores[0].share() >= 0.95, "{:?}", scores[0]);
    for baseline in &scores[1..] {
        assert!(scores[0].same() > baseline.same(), "{baseline:?} is no worse");
    }
}

#[test]
fn of_a_few_pods_the_same_tiers_are_whole_as_in_the_optimum() {
    judge("1 to 10 pods beside the exact optimum", &scores(10, optimum::exact));
}

#[test]
fn of_many_pods_the_same_tiers_are_whole_as_in_the_bound_of_any_optimum() {
    judge("1 to 60 pods beside the bound of any optimum", &scores(60, optimum::bound));
}

/// Guarantee 10: the first tier that differs has more of it.
#[test]
fn more_time_or_more_bandwidth_never_saves_less() {
    let mut more = 0;
    for seed in 0..draws() {
        let draw = Draw::new(seed, 12);
        let saved = |draw: &Draw| value(draw, &field::run(draw));
        let before = saved(&draw);
        let longer = saved(&Draw { window: draw.window + 20_000, ..draw.clone() });
        let faster = saved(&Draw { link: draw.link * 5 / 4, ..draw.clone() });
        assert!(longer >= before, "seed {seed}: {longer:?} with 20 s more, {before:?} without: {draw:#?}");
        assert!(
            faster >= before,
            "seed {seed}: {faster:?} with a quarter more, {before:?} without: {draw:#?}"
        );
        more += u64::from(longer > before) + u64::from(faster > before);
    }
    assert!(more > draws() / 4, "it made a difference in {more} cases only");
}

/// The exact optimum and the bound agree where both can be had.
#[test]
fn the_bound_is_never_below_the_exact_optimum() {
    for seed in 0..draws() {
        let draw = Draw::new(seed, 9);
        let (exact, bound) = (optimum::exact(&draw), optimum::bound(&draw));
        assert_eq!(exact.whole, bound.whole, "seed {seed}");
        assert!(bound.next >= exact.next, "seed {seed}: {bound:?} is below {exact:?}");
    }
}
