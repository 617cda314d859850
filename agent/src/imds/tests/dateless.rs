//! An IMDS whose answers have no `Date`. The crate `fakes` cannot play it: hyper, beneath axum, always sends one.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// The time left of the first notice.
pub(super) async fn time_left(notice: &str, poll: Duration) -> i64 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let notice = notice.to_owned();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut request).await {
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let (status, body) = match request.split(' ').nth(1) {
                    Some("/latest/api/token") => ("200 OK", "t"),
                    Some("/latest/meta-data/instance-life-cycle") => ("200 OK", "spot"),
                    Some("/latest/meta-data/spot/instance-action") => ("200 OK", notice.as_str()),
                    _ => ("404 Not Found", ""),
                };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    let (out, mut events) = mpsc::channel(8);
    tokio::spawn(Imds::new(&endpoint, poll).unwrap().watch(out, CancellationToken::new()));
    loop {
        if let ImdsEvent::Notice(notice) = events.recv().await.unwrap() {
            return notice.left_ms;
        }
    }
}
