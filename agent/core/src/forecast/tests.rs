//! What the forecast promises, against every set there is where there are few.

use super::*;

const NOW: Moment = Moment::from_millis(1_000_000);

/// A megabyte a second: bytes are microseconds.
fn link(bytes_per_second: u64) -> Resources {
    Resources { now: NOW, link: Some(bytes_per_second), flush_slots: 4 }
}

fn load(priority: i32, bytes: u64, seconds: u64) -> Load {
    Load {
        doubted: false,
        serves_to_the_end: false,
        priority,
        role: Role::Active,
        value: bytes,
        send: bytes,
        flush: Span::ZERO,
        cutoff: NOW + Span::from_secs(seconds),
    }
}

fn kept(rate: u64, loads: &[Load]) -> Vec<bool> {
    forecast(link(rate), loads).iter().map(|fit| matches!(fit, Fit::By(_))).collect()
}

#[test]
fn what_cannot_fit_even_alone_takes_no_time_from_what_does() {
    assert_eq!(kept(100, &[load(9, 10_000, 20), load(9, 1000, 20), load(1, 500, 20)]), [false, true, true]);
}

#[test]
fn the_lowest_tier_is_dropped_first_whatever_it_is_worth() {
    assert_eq!(kept(100, &[load(1, 1900, 20), load(9, 200, 20)]), [false, true]);
    assert_eq!(kept(100, &[load(9, 200, 20), load(5, 1700, 20), load(1, 200, 20)]), [true, true, false]);
}

#[test]
fn within_a_tier_the_most_bytes_are_kept_not_the_most_pods() {
    assert_eq!(
        kept(100, &[load(5, 100, 20), load(5, 100, 20), load(5, 1900, 20)]),
        [true, false, true],
        "2,000 bytes fit"
    );
}

#[test]
fn an_earlier_cut_off_goes_first_within_a_tier() {
    let fits = forecast(link(100), &[load(5, 1000, 30), load(5, 1000, 10)]);
    assert_eq!(fits, [Fit::By(NOW + Span::from_secs(20)), Fit::By(NOW + Span::from_secs(10))]);
}

#[test]
fn a_lower_tier_sends_while_a_higher_one_flushes() {
    let slow = Load { flush: Span::from_secs(10), ..load(9, 1000, 30) };
    let fits = forecast(link(100), &[slow, load(1, 500, 30)]);
    assert_eq!(fits, [Fit::By(NOW + Span::from_secs(20)), Fit::By(NOW + Span::from_secs(5))]);
    // One that is interrupted goes on behind it.
    let fits = forecast(link(100), &[slow, load(1, 1500, 30)]);
    assert_eq!(fits[1], Fit::By(NOW + Span::from_secs(25)));
}

#[test]
fn flushes_wait_for_a_slot() {
    let one = Resources { flush_slots: 1, ..link(100) };
    let flush = |seconds| Load { flush: Span::from_secs(seconds), ..load(9, 100, 60) };
    let fits = forecast(one, &[flush(10), Load { priority: 1, ..flush(10) }]);
    assert_eq!(fits, [Fit::By(NOW + Span::from_secs(11)), Fit::By(NOW + Span::from_secs(21))]);
}

#[test]
fn what_does_not_fit_says_what_it_needs_and_what_it_has() {
    let fits = forecast(link(100), &[load(9, 1500, 20), load(1, 1000, 20)]);
    assert_eq!(fits[1], Fit::Not { needs: Span::from_secs(10), has: Span::from_secs(5) });
}

#[test]
fn nothing_is_known_without_a_rate_and_nothing_panics_at_the_ends_of_the_numbers() {
    let loads = [load(9, u64::MAX, 0), Load { flush: Span::from_millis(u64::MAX), ..load(9, 0, u64::MAX) }];
    assert_eq!(forecast(Resources { link: None, ..link(1) }, &loads), [Fit::Unknown; 2]);
    assert_eq!(forecast(link(0), &loads), [Fit::Unknown; 2]);
    assert!(forecast(Resources { flush_slots: 0, ..link(1) }, &loads)[0].is_dropped());
    assert!(!forecast(link(u64::MAX), &[load(1, u64::MAX, 5)])[0].is_dropped());
}

#[test]
fn a_tier_of_more_states_than_are_told_apart_is_whole_if_it_fits_and_else_its_first_ones_are_chosen_from() {
    let many = vec![load(9, 10, 60); 200];
    assert!(kept(100, &many).iter().all(|kept| *kept), "20 s of 60");
    let kept = kept(100, &vec![load(9, 100, 60); 200]);
    assert_eq!(kept.iter().filter(|kept| **kept).count(), 60);
}

#[test]
fn when_each_is_over_is_known_with_a_rate_only_and_counts_what_does_not_fit() {
    let loads = [load(9, 1000, 5), load(1, 500, 5)];
    assert_eq!(completions(Resources { link: None, ..link(1) }, &loads), None);
    assert_eq!(completions(link(0), &loads), None);
    let over = [NOW + Span::from_secs(10), NOW + Span::from_secs(15)];
    assert_eq!(completions(link(100), &loads).as_deref(), Some(over.as_slice()));
}

#[test]
fn what_is_interrupted_goes_on_in_the_next_free_stretch_and_leaves_the_rest_free() {
    // Two that flush until 10 s and 20 s send for 2 s each; the third, which counts least, has what is between.
    let late = |priority, flush| Load { flush: Span::from_secs(flush), ..load(priority, 200, 60) };
    let loads = [late(9, 10), late(8, 20), load(1, 1500, 60), load(0, 400, 60)];
    let seconds: Vec<u64> = (forecast(link(100), &loads).iter())
        .map(|fit| if let Fit::By(at) = fit { at.since(NOW).as_secs() } else { 0 })
        .collect();
    assert_eq!(seconds, [12, 22, 17, 23]);
}

#[test]
fn ways_to_fill_the_time_are_thinned_evenly_and_the_best_and_the_shortest_stay() {
    let way = |n| Filling { used: n, value: n, chosen: Chosen::default() };
    let mut ways: Vec<Filling> = (0..2_000).map(way).collect();
    prune(&mut ways);
    assert!((WAYS..=WAYS + 1).contains(&ways.len()), "{}", ways.len());
    assert_eq!((ways[0].used, ways.last().map(|way| way.value)), (0, Some(1_999)));
    let gaps = ways.windows(2).map(|pair| pair[1].used - pair[0].used).max();
    assert!(gaps <= Some(4), "{gaps:?}");
    // What takes longer and is worth no more goes first.
    let mut beaten = vec![way(5), Filling { used: 9, ..way(5) }, Filling { used: 7, ..way(4) }, way(8)];
    prune(&mut beaten);
    assert_eq!(beaten.iter().map(|way| way.used).collect::<Vec<_>>(), [5, 8]);
}

fn draw(rng: &mut fastrand::Rng, most: usize) -> Vec<Load> {
    let one = |rng: &mut fastrand::Rng| Load {
        flush: Span::from_millis(rng.u64(0..8_000) * rng.u64(0..2)),
        ..load(rng.i32(0..3), rng.u64(0..4_000), rng.u64(5..60))
    };
    (0..rng.usize(1..=most)).map(|_| one(rng)).collect()
}

/// Bytes kept of each tier, the most important first.
fn tiers(loads: &[Load], fits: &[Fit]) -> Vec<u64> {
    let bytes = |priority| {
        let kept =
            loads.iter().zip(fits).filter(|(load, fit)| load.priority == priority && !fit.is_dropped());
        kept.map(|(load, _)| load.value).sum()
    };
    [2, 1, 0].map(bytes).to_vec()
}

#[test]
fn no_other_set_of_the_first_tier_keeps_more_bytes() {
    for seed in 0..400 {
        let rng = &mut fastrand::Rng::with_seed(seed);
        let loads: Vec<Load> =
            draw(rng, 9).into_iter().map(|load| Load { priority: 1, flush: Span::ZERO, ..load }).collect();
        let most = (0u32..1 << loads.len())
            .map(|set| -> Vec<Load> {
                (0..loads.len()).filter(|at| set >> at & 1 == 1).map(|at| loads[at]).collect()
            })
            .filter(|set| {
                let mut set = set.clone();
                set.sort_by_key(|load| load.cutoff);
                let mut sent = 0;
                set.iter().all(|load| {
                    sent += load.send * 1000 / 100;
                    NOW + Span::from_millis(sent) <= load.cutoff
                })
            })
            .map(|set| set.iter().map(|load| load.value).sum::<u64>())
            .max();
        let fits = forecast(link(100), &loads);
        assert_eq!(Some(tiers(&loads, &fits)[1]), most, "seed {seed}: {loads:?}");
    }
}

#[test]
fn more_time_or_a_faster_link_never_keeps_less_of_the_highest_tiers() {
    for seed in 0..2_000 {
        let rng = &mut fastrand::Rng::with_seed(seed);
        let loads = draw(rng, 10);
        let later: Vec<_> =
            loads.iter().map(|load| Load { cutoff: load.cutoff + Span::from_secs(7), ..*load }).collect();
        let at = |rate, loads: &[Load]| tiers(loads, &forecast(link(rate), loads));
        assert!(at(130, &loads) >= at(100, &loads), "seed {seed}, a faster link: {loads:#?}");
        assert!(at(100, &later) >= at(100, &loads), "seed {seed}, more time: {loads:#?}");
    }
}

#[test]
fn everything_that_fits_is_over_by_its_cut_off_and_never_sooner_than_it_can_be() {
    for seed in 0..1_000 {
        let rng = &mut fastrand::Rng::with_seed(seed);
        let loads = draw(rng, 60);
        for (load, fit) in loads.iter().zip(forecast(link(1_000), &loads)) {
            let soonest = NOW + load.flush + Span::from_millis(load.send);
            match fit {
                Fit::By(at) => assert!(soonest <= at && at <= load.cutoff, "seed {seed}: {load:?} at {at:?}"),
                Fit::Not { needs, .. } => assert_eq!(needs, Span::from_millis(load.send)),
                Fit::Unknown => panic!("the rate is known"),
            }
        }
    }
}
