//! Keys of a role that run out while they are used, as a container's credentials endpoint hands them out.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use super::{Fate, Moment, Proxy, Seen, lay_out, nonce, server, states};
use crate::{
    actor::{self, Outcome, Place, Role},
    replica::contents,
};

/// How long a key lives, and after which time the endpoint hands out the next.
const LIFE: Duration = Duration::from_secs(2);
const TURN: Duration = Duration::from_secs(1);
/// How long each request takes at least, so that an evacuation outlives several keys.
const PACE: Duration = Duration::from_millis(120);

/// The keys of the server's users, each with the moment at which it runs out once it was handed out.
///
/// They have no session token: this server knows none but its own.
struct Keys {
    began: Instant,
    users: Vec<String>,
    expires: Mutex<HashMap<String, Instant>>,
    used: Mutex<HashSet<String>>,
    refused: Mutex<Vec<String>>,
}

impl Keys {
    fn new() -> Self {
        let users = std::env::var("LIFEBOAT_S3_ROLE_KEYS").expect("tests/run s3 makes users");
        Self {
            began: Instant::now(),
            users: users.split_whitespace().map(str::to_owned).collect(),
            expires: Mutex::default(),
            used: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    fn issue(&self) -> String {
        let turn = usize::try_from(self.began.elapsed().as_millis() / TURN.as_millis()).unwrap();
        let user = &self.users[turn % self.users.len()];
        // Those of one turn expire together: LIFE after it began.
        let ends = self.began + TURN * u32::try_from(turn).unwrap() + LIFE;
        self.expires.lock().unwrap().insert(user.clone(), ends);
        let left = ends.saturating_duration_since(Instant::now());
        serde_json::json!({
            "AccessKeyId": user,
            "SecretAccessKey": std::env::var("AWS_SECRET_ACCESS_KEY").unwrap(),
            "Token": "",
            "Expiration": (Timestamp::now() + left).to_string(),
        })
        .to_string()
    }

    /// As S3 judges a key.
    fn judge(&self, seen: &Seen) -> Fate {
        self.used.lock().unwrap().insert(seen.key.clone());
        if self.expires.lock().unwrap().get(&seen.key).is_none_or(|expires| Instant::now() > *expires) {
            self.refused.lock().unwrap().push(format!("{} {} with {}", seen.method, seen.path, seen.key));
            return Fate::Refuse(400, "ExpiredToken");
        }
        Fate::Stall(Moment::Answer, PACE)
    }
}

/// The endpoint that `AWS_CONTAINER_CREDENTIALS_FULL_URI` names.
async fn endpoint(keys: Arc<Keys>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/credentials", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        loop {
            let Ok((mut client, _)) = listener.accept().await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && client.read_buf(&mut head).await.is_ok_and(|read| read > 0)
            {
            }
            let body = keys.issue();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = client.write_all(answer.as_bytes()).await;
        }
    });
    (url, serving)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_run_out_during_a_run_are_replaced_in_time() {
    let keys = Arc::new(Keys::new());
    let (url, serving) = endpoint(Arc::clone(&keys)).await;
    let judge = Arc::clone(&keys);
    let proxy = Proxy::new(&server(), move |seen| judge.judge(seen)).await;
    let root = tempfile::tempdir().unwrap();
    lay_out(&root.path().join("state"), &states()[0]);
    std::fs::create_dir(root.path().join("restored")).unwrap();

    let place = Place::Bucket(format!("keys-{}", nonce()), proxy.url());
    let mut child = actor::child(&[], Role::Evacuates, &place, root.path());
    child.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    child.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
    let outcome = actor::outcome(child.spawn().unwrap()).await;
    serving.abort();

    let (used, refused) = (keys.used.lock().unwrap(), keys.refused.lock().unwrap());
    println!(
        "{} requests with {} keys of {LIFE:?}, {} came too late",
        proxy.traffic().requests(),
        used.len(),
        refused.len()
    );
    assert_eq!(outcome, Outcome::Survived);
    assert!(contents(&root.path().join("restored")) == states()[0]);
    assert!(refused.is_empty(), "with a key that had run out: {refused:?}");
    assert!(used.len() >= 3, "no key ran out: {used:?}");
}
