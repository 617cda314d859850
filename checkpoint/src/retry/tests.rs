use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::*;

fn within(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
    let calls = AtomicU32::new(0);
    let answer = with_retries("x", within(5000), |attempt| {
        assert_eq!(calls.fetch_add(1, Relaxed), attempt);
        async move { if attempt < 3 { Err(StoreError::transient("reset")) } else { Ok(attempt) } }
    });
    assert_eq!(answer.await.unwrap(), 3);
    let calls = AtomicU32::new(0);
    let answer = with_retries::<(), _, _>("x", within(5000), |_| {
        calls.fetch_add(1, Relaxed);
        async { Err(StoreError::NotFound { key: "k".into() }) }
    });
    assert_eq!(answer.await.unwrap_err().category(), "not_found");
    assert_eq!(calls.load(Relaxed), 1);
}

#[tokio::test]
async fn nothing_goes_on_after_the_deadline_and_the_last_failure_is_told() {
    let began = Instant::now();
    let failing =
        with_retries::<(), _, _>("PUT k", within(400), |_| async { Err(StoreError::transient("reset")) });
    let error = failing.await.unwrap_err();
    assert!(began.elapsed() <= Duration::from_millis(450), "{:?}", began.elapsed());
    assert_eq!(error.category(), "timed_out");
    assert!(
        error.to_string().contains("no time left for PUT k") && error.to_string().contains("reset"),
        "{error}"
    );

    let hanging = with_retries::<(), _, _>("PUT k", within(100), |_| std::future::pending());
    assert_eq!(hanging.await.unwrap_err().category(), "timed_out");
    assert!(began.elapsed() < Duration::from_millis(700));

    let late = with_retries("PUT k", Instant::now(), |_| async { Ok(()) });
    assert_eq!(late.await.unwrap_err().category(), "timed_out", "after the deadline nothing is even begun");
}

#[tokio::test]
async fn an_attempt_that_hangs_gives_way_to_the_next() {
    let calls = AtomicU32::new(0);
    let patience = Duration::from_millis(50);
    let answer = with_retries_of("x", within(5000), &patience, |attempt| {
        calls.fetch_add(1, Relaxed);
        async move {
            if attempt == 0 {
                std::future::pending::<()>().await;
            }
            Ok(attempt)
        }
    });
    assert_eq!(answer.await.unwrap(), 1);
}

#[test]
fn the_spacing_is_full_jitter_and_at_most_a_second() {
    let throttled = StoreError::Throttled { message: String::new() };
    let longest = |failure: &StoreError, attempt| (0..2000).map(|_| spacing(failure, attempt)).max().unwrap();
    assert!(longest(&StoreError::transient(""), 0) <= BASE);
    assert!(longest(&throttled, 0) > Duration::from_millis(400) && longest(&throttled, 0) <= BASE_THROTTLED);
    for attempt in [5, 31, u32::MAX] {
        assert!(longest(&throttled, attempt) <= SPACING_MAX);
    }
    let shortest = (0..2000).map(|_| spacing(&throttled, 9)).min().unwrap();
    assert!(shortest < Duration::from_millis(50), "{shortest:?}");
}

#[tokio::test]
async fn what_answers_once_is_there_and_what_never_does_is_silence() {
    let ends = async |answers: &[StoreError]| {
        let deadline = within(300);
        let nth = |attempt: u32| answers[answers.len().min(attempt as usize + 1) - 1].clone();
        let ended = with_retries("it", deadline, |attempt| {
            let error = nth(attempt);
            async move { Err::<(), _>(error) }
        });
        ended.await.unwrap_err()
    };
    let refused = StoreError::Unreachable { message: "refused".into() };
    let later = StoreError::Throttled { message: "503".into() };
    assert!(ends(std::slice::from_ref(&refused)).await.is_silence());
    assert!(!ends(std::slice::from_ref(&later)).await.is_silence());
    assert!(!ends(&[later, refused]).await.is_silence(), "it answered the first time");
    let hangs = with_retries("it", within(200), |_| std::future::pending::<Result<(), StoreError>>());
    assert!(hangs.await.unwrap_err().is_silence());
    let late = with_retries("it", Instant::now(), |_| std::future::ready(Ok::<(), _>(())));
    assert!(!late.await.unwrap_err().is_silence(), "nothing was asked");
}
