use super::*;

async fn settled() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn dispatcher(slots: usize) -> Dispatcher {
    Dispatcher::new(Limits::slots(slots))
}

fn job(dispatcher: &Dispatcher, class: Class, rank: u64) -> Job {
    let cut_off = Instant::now() + Duration::from_secs(100);
    dispatcher.enlist(class, rank, Work { bytes: 1, cut_off })
}

/// Lets each waiter note its name when it is served and pass the slot on.
async fn order_of(dispatcher: &Dispatcher, waiters: Vec<(&'static str, Job)>) -> Vec<&'static str> {
    let front = job(dispatcher, Class::Drain, 0);
    let held = front.queue().granted().await;
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for (name, waiter) in waiters {
        let served = served.clone();
        tasks.push(tokio::spawn(async move {
            let _permit = waiter.queue().granted().await.unwrap();
            served.lock().unwrap().push(name);
        }));
        settled().await;
    }
    drop(held);
    for task in tasks {
        task.await.unwrap();
    }
    Arc::into_inner(served).unwrap().into_inner().unwrap()
}

#[tokio::test]
async fn who_fills_a_pack_has_its_next_place_already_and_giving_it_up_serves_the_next() {
    let dispatcher = dispatcher(1);
    let first = job(&dispatcher, Class::Drain, 0);
    let filling = first.queue().granted().await;
    let behind = job(&dispatcher, Class::Drain, 1);
    let lower = tokio::spawn(async move {
        let permit = behind.queue().granted().await;
        (behind, permit)
    });
    settled().await;
    let ahead = first.queue();
    drop(filling);
    let next = ahead.granted().await;
    assert!(!lower.is_finished(), "it came first, and counts less");
    // The last pack: the place for another is given up, although the slot was granted already.
    let more = first.queue();
    drop(next);
    settled().await;
    assert!(!lower.is_finished());
    drop(more);
    assert!(lower.await.unwrap().1.is_some());
}

#[tokio::test]
async fn the_waiting_are_served_by_class_rank_cut_off_and_arrival() {
    let dispatcher = dispatcher(1);
    let drain = |rank, seconds| {
        let cut_off = Instant::now() + Duration::from_secs(seconds);
        dispatcher.enlist(Class::Drain, rank, Work { bytes: 1, cut_off })
    };
    let waiters = vec![
        ("pre-copy", job(&dispatcher, Class::PreCopy, 0)),
        ("fetch", job(&dispatcher, Class::Fetch, 0)),
        ("late", drain(9, 10)),
        ("later cut-off", drain(1, 60)),
        ("first", drain(1, 50)),
    ];
    let order = order_of(&dispatcher, waiters).await;
    assert_eq!(order, ["first", "later cut-off", "late", "fetch", "pre-copy"]);
}

#[tokio::test]
async fn a_transfer_that_is_moved_while_it_waits_is_served_at_its_new_place() {
    let dispatcher = dispatcher(1);
    let moved = Rank::from(9);
    let cut_off = Instant::now() + Duration::from_secs(60);
    let enlist = |rank: Rank| dispatcher.enlist(Class::Drain, rank, Work { bytes: 1, cut_off });
    let waiters =
        vec![("first", enlist(1.into())), ("second", enlist(2.into())), ("moved", enlist(moved.clone()))];
    moved.set(0);
    assert_eq!(order_of(&dispatcher, waiters).await, ["moved", "first", "second"]);
}

#[tokio::test]
async fn what_cannot_be_over_in_time_is_set_back_behind_what_can_and_still_takes_what_is_idle() {
    let dispatcher = dispatcher(1);
    let measured = job(&dispatcher, Class::Drain, 0);
    let permit = measured.queue().granted().await;
    let began = Instant::now();
    let step = Duration::from_millis(500);
    for n in 1..9 {
        measured.acknowledged_at(50, step, began + step * n); // 100 bytes per second
    }
    let work = |bytes| Work { bytes, cut_off: Instant::now() + Duration::from_secs(20) };
    let large = dispatcher.enlist(Class::Drain, 1, work(100_000));
    let small = dispatcher.enlist(Class::Drain, 2, work(1000));
    let (first, second) = (large.queue(), small.queue());
    drop(permit);
    let small_permit = second.granted().await.unwrap();
    assert!(large.is_set_back() && !small.is_set_back());
    drop((small_permit, small));
    assert!(first.granted().await.is_some(), "nobody else wants the slot");
    // It became smaller: it fits again.
    large.left(10);
    let again = large.queue();
    settled().await;
    drop(again);
    assert!(!large.is_set_back());
}

#[tokio::test]
async fn pre_copy_never_has_more_than_one_slot() {
    let dispatcher = dispatcher(4);
    let first = job(&dispatcher, Class::PreCopy, 0);
    let permit = first.queue().granted().await;
    let second = job(&dispatcher, Class::PreCopy, 0);
    let waiting = tokio::spawn(async move { second.queue().granted().await.is_some() });
    settled().await;
    assert!(!waiting.is_finished());
    let drain = job(&dispatcher, Class::Drain, 7);
    let _drain = drain.queue().granted().await;
    drop(permit);
    assert!(waiting.await.unwrap());
}

#[tokio::test]
async fn pre_copy_stays_below_its_rate_and_a_drain_is_not_held_up() {
    let dispatcher = Dispatcher::new(Limits { slots: 4, pre_copy_rate: Some(1000) });
    let began = Instant::now();
    let copy = job(&dispatcher, Class::PreCopy, 0);
    for _ in 0..5 {
        copy.acknowledged_at(2000, Duration::from_millis(1), began + Duration::from_millis(1));
    }
    // Ten thousand bytes at a thousand per second.
    assert_eq!(dispatcher.state().pre_copy_free, began + Duration::from_secs(10));
    assert!(tokio::time::timeout(Duration::from_millis(50), copy.paced()).await.is_err());
    let drain = job(&dispatcher, Class::Drain, 0);
    tokio::time::timeout(Duration::from_secs(5), drain.paced()).await.unwrap();
    drain.acknowledged_at(1 << 30, Duration::from_secs(1), began + Duration::from_secs(1));
    assert_eq!(dispatcher.state().pre_copy_free, began + Duration::from_secs(10));
}

#[tokio::test]
async fn who_gives_up_waiting_takes_no_slot_with_him() {
    let dispatcher = dispatcher(1);
    let first = job(&dispatcher, Class::Drain, 0);
    let held = first.queue().granted().await;
    let impatient = job(&dispatcher, Class::Drain, 0);
    let gone = tokio::spawn(async move { impatient.queue().granted().await.is_some() });
    settled().await;
    gone.abort();
    let _ = gone.await;
    drop(held);
    let last = job(&dispatcher, Class::Drain, 9);
    let permit = tokio::time::timeout(Duration::from_secs(5), last.queue().granted()).await.unwrap();
    drop(permit);
    assert_eq!(dispatcher.state().busy, 0);
}

#[tokio::test]
async fn a_pack_is_waited_for_as_long_as_packs_take_and_each_time_twice_as_long() {
    let dispatcher = dispatcher(1);
    let limit = Duration::from_secs(100);
    let copy = job(&dispatcher, Class::Drain, 0);
    assert_eq!(copy.patience(0, limit), limit, "nothing is known yet");
    for _ in 0..50 {
        copy.acknowledged(1, Duration::from_secs(2));
    }
    assert_eq!(copy.patience(0, limit).as_secs(), 12);
    assert_eq!(copy.patience(1, limit).as_secs(), 24);
    assert_eq!(copy.patience(9, limit), limit);
    assert_eq!(job(&dispatcher, Class::Fetch, 0).patience(0, limit), limit);
    for _ in 0..50 {
        copy.acknowledged(1, Duration::from_millis(5));
    }
    assert_eq!(copy.patience(0, limit), PATIENCE_MIN);
}
