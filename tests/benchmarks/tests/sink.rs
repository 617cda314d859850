//! The sink answers as its clients take it, and what they cost is not its doing: bodies arrive whole, however they come.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test from beginning to end")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use benchmarks::{certificate, sink};

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

fn plain(keep: bool) -> SocketAddr {
    sink::start(&certificate::make().unwrap(), keep).unwrap().http
}

/// One request on a connection of its own; `headers` end their lines themselves.
fn ask(to: SocketAddr, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(to).unwrap();
    let mut request = format!("{method} /{target} HTTP/1.1\r\nHost: sink\r\n{headers}\r\n").into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request).unwrap();
    answer(&mut BufReader::new(stream), method)
}

fn answer(stream: &mut impl BufRead, method: &str) -> Answer {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "the sink hung up after {head:?}");
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer { status, head, body: Vec::new() };
    let length = answer.header("Content-Length").map_or(0, |text| text.parse().unwrap());
    answer.body.resize(if method == "HEAD" { 0 } else { length }, 0);
    stream.read_exact(&mut answer.body).unwrap();
    answer
}

fn put(to: SocketAddr, key: &str, headers: &str, body: &[u8]) -> Answer {
    let headers = format!("Content-Length: {}\r\n{headers}", body.len());
    ask(to, "PUT", key, &headers, body)
}

fn noise(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let step = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(step).take(size).collect()
}

#[test]
fn a_key_that_may_only_be_created_is_created_once_whoever_races() {
    let to = plain(false);
    let racers: Vec<_> = (0..16)
        .map(|racer| thread::spawn(move || put(to, "b/claim", "If-None-Match: *\r\n", &[racer; 10]).status))
        .collect();
    let mut statuses: Vec<_> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [&[200][..], &[412; 15]].concat());
}

#[test]
fn a_write_on_a_version_happens_only_while_it_is_the_version() {
    let to = plain(false);
    let first = put(to, "b/k", "", b"first");
    let on_first = format!("If-Match: {}\r\n", first.header("ETag").unwrap());
    assert_eq!(put(to, "b/k", &on_first, b"second").status, 200);
    assert_eq!(put(to, "b/k", &on_first, b"third").status, 412);
    assert_eq!(put(to, "b/none", &on_first, b"third").status, 404);
    assert_eq!(ask(to, "GET", "b/k", "", b"").text(), "second");
}

#[test]
fn a_range_is_cut_across_the_parts_that_it_was_uploaded_in() {
    let (to, bytes) = (plain(true), noise(3 << 20));
    let created = ask(to, "POST", "b/k?uploads", "", b"");
    let id = created.text().split("<UploadId>").nth(1).unwrap().split('<').next().unwrap().to_owned();
    for (number, part) in bytes.chunks(1 << 20).enumerate().rev() {
        assert_eq!(put(to, &format!("b/k?partNumber={}&uploadId={id}", number + 1), "", part).status, 200);
    }
    assert_eq!(ask(to, "GET", "b/k", "", b"").status, 404, "it is not complete");
    assert_eq!(ask(to, "POST", &format!("b/k?uploadId={id}"), "", b"").status, 200);
    let (from, until) = ((1 << 20) - 7, (2 << 20) + 9);
    let range = format!("Range: bytes={from}-{}\r\n", until - 1);
    let cut = ask(to, "GET", "b/k", &range, b"");
    assert!((cut.status, cut.body) == (206, bytes[from..until].to_vec()));
    let last = ask(to, "GET", "b/k", &format!("Range: bytes={}-{}\r\n", (3 << 20) - 4, 4 << 20), b"");
    assert_eq!(last.body, bytes[bytes.len() - 4..]);
    assert_eq!(ask(to, "GET", "b/k", "Range: bytes=3145728-\r\n", b"").status, 416);
}

#[test]
fn chunks_within_chunks_that_arrive_byte_by_byte_are_the_body() {
    let to = plain(false);
    let inner = b"5;chunk-signature=x\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n";
    let mut request = b"PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Encoding: aws-chunked\r\n\
        x-amz-decoded-content-length: 11\r\nExpect: 100-continue\r\n\r\n"
        .to_vec();
    let stream = TcpStream::connect(to).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let send = |bytes: &[u8]| bytes.iter().for_each(|byte| (&stream).write_all(&[*byte]).unwrap());
    send(&request);
    assert_eq!(answer(&mut reader, "PUT").status, 100);
    request.clear();
    for piece in inner.chunks(10) {
        request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        request.extend_from_slice(piece);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\nGET /b/k HTTP/1.1\r\n\r\n");
    send(&request);
    assert_eq!(answer(&mut reader, "PUT").status, 200);
    assert_eq!(answer(&mut reader, "GET").text(), "hello world");
}

#[test]
fn what_is_dropped_is_counted_and_listed_but_never_answered() {
    let to = plain(false);
    put(to, "b/large", "", &noise(2 << 20));
    put(to, "b/small&", "", b"x");
    let listed = ask(to, "GET", "b?list-type=2&prefix=", "", b"");
    assert!(listed.text().contains("<Size>2097152</Size>"), "{}", listed.text());
    assert!(listed.text().contains("<Key>small&amp;</Key>"));
    assert_eq!(ask(to, "HEAD", "b/large", "", b"").header("Content-Length"), Some("2097152"));
    assert_eq!(ask(to, "GET", "b/large", "", b"").status, 501);
    let counts = ask(to, "GET", "__counts?reset", "", b"");
    let counts: serde_json::Value = serde_json::from_slice(&counts.body).unwrap();
    assert_eq!((&counts["bytes_in"], &counts["requests"]), (&2_097_153.into(), &5.into()));
    assert_eq!((&counts["failed"], &counts["in_flight_max"]), (&1.into(), &1.into()));
}

/// The programs as `tests/bench` runs them: TLS, the certificate from a file, and a process that ends with its input.
#[test]
fn what_the_client_saves_over_tls_it_restores() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("state")).unwrap();
    fs::create_dir(path("restored")).unwrap();
    let bytes = noise((9 << 20) + 5);
    fs::write(path("state/a"), &bytes).unwrap();
    let mut sink = start_sink(&path("ca.pem"));
    let mut line = String::new();
    BufReader::new(sink.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let addresses: serde_json::Value = serde_json::from_str(&line).unwrap();
    let client = |arguments: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_client"))
            .args(["--store", "s3://b", "--endpoint", addresses["https"].as_str().unwrap()])
            .arg("--ca")
            .arg(path("ca.pem"))
            .args(arguments)
            .current_dir(folder.path())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs([("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice::<serde_json::Value>(&done.stdout).unwrap()
    };
    assert_eq!(client(&["save", "state", "--pack-mib", "4"])["bytes_sent"], bytes.len());
    client(&["restore", "restored"]);
    assert!(fs::read(path("restored/a")).unwrap() == bytes, "the restored bytes are others");

    let mut changed = bytes;
    changed[5 << 20] ^= 1;
    fs::write(path("state/a"), &changed).unwrap();
    assert_eq!(client(&["save", "state", "--delta"])["bytes_sent"], 1 << 20);

    drop(sink.stdin.take());
    assert!(sink.wait().unwrap().success());
}

fn start_sink(ca: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_sink"))
        .arg("--keep")
        .arg("--ca")
        .arg(ca)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}
