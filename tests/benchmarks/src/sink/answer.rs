//! What S3 answers to a request.

use std::{fmt::Write as _, ops::Range, sync::Arc};

use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};

use super::{
    objects::{Objects, Refused, Stored},
    request::{Head, Request},
};

/// An answer, without the headers that every answer has.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: &'static str,
    pub(super) headers: String,
    pub(super) content: Content,
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Content {
    Text(String),
    /// Only its length (HEAD).
    Length(u64),
    /// A range of an object.
    Bytes(Vec<Arc<Vec<u8>>>, Range<u64>),
}

/// Does what `request` asks for.
pub(super) fn answer(objects: &Objects, request: Request) -> Answer {
    let is_head = request.head.method == "HEAD";
    let mut answer = answer_with_body(objects, request);
    if let (true, Content::Text(text)) = (is_head, &answer.content) {
        answer.content = Content::Length(text.len() as u64);
    }
    answer
}

fn answer_with_body(objects: &Objects, request: Request) -> Answer {
    let Request { head, payload } = request;
    let (bucket, key) = head.place();
    let upload = head.query("uploadId");
    match (head.method.as_str(), upload, key.is_empty()) {
        ("PUT", Some(id), false) => {
            let number = head.query("partNumber").and_then(|number| number.parse().ok()).unwrap_or(0);
            match objects.multipart.add(id, number, payload.into()) {
                true => empty("200 OK", &etag(&objects.etag())),
                false => error("404 Not Found", "NoSuchUpload", &head),
            }
        }
        ("POST", Some(id), false) => complete(objects, id, &head),
        ("DELETE", Some(id), false) => {
            objects.multipart.close(id);
            empty("204 No Content", "")
        }
        ("POST", None, false) if head.query("uploads").is_some() => {
            let id = objects.etag().replace('"', "");
            objects.multipart.create(&id);
            xml("InitiateMultipartUploadResult", &[("Bucket", bucket), ("Key", key), ("UploadId", &id)])
        }
        ("PUT", None, false) => match objects.put(&head.path, &head, vec![payload.into()]) {
            Ok(stored) => empty("200 OK", &etag(&stored.etag)),
            Err(refused) => refuse(&refused, &head),
        },
        ("GET" | "HEAD", _, false) => read(objects, &head),
        ("DELETE", None, false) => {
            objects.delete(&head.path);
            empty("204 No Content", "")
        }
        ("GET", _, true) if head.query("location").is_some() => {
            text("<LocationConstraint xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>".to_owned())
        }
        ("GET", _, true) if !bucket.is_empty() => list(objects, bucket, &head),
        ("HEAD" | "PUT", _, true) => empty("200 OK", ""),
        _ => error("501 Not Implemented", "NotImplemented", &head),
    }
}

fn read(objects: &Objects, head: &Head) -> Answer {
    let Some(stored) = objects.get(&head.path) else { return error("404 Not Found", "NoSuchKey", head) };
    let Stored { size, etag: tag, modified, pieces } = stored;
    if head.header("if-match").is_some_and(|wanted| wanted != tag) {
        return refuse(&Refused::Precondition, head);
    }
    let mut headers = etag(&tag);
    let _ = write!(headers, "Last-Modified: {}\r\nAccept-Ranges: bytes\r\n", http_date(modified));
    let range = head.header("range").map(|text| range(text, size));
    let (status, range) = match range {
        None => ("200 OK", 0..size),
        Some(Some(range)) => {
            let _ = write!(headers, "Content-Range: bytes {}-{}/{size}\r\n", range.start, range.end - 1);
            ("206 Partial Content", range)
        }
        Some(None) => return error("416 Requested Range Not Satisfiable", "InvalidRange", head),
    };
    let content = match (head.method.as_str(), pieces) {
        ("HEAD", _) => Content::Length(range.end - range.start),
        (_, Some(pieces)) => Content::Bytes(pieces, range),
        // Rather no answer than wrong bytes.
        (_, None) => return error("501 Not Implemented", "StartTheSinkWithKeep", head),
    };
    Answer { status, headers, content }
}

/// `bytes=a-b`, `bytes=a-` or `bytes=-n`, as far as the object goes; `None` if it lies behind its end.
fn range(text: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first.parse::<u64>().ok(), last.parse::<u64>().ok()) {
        (Some(first), Some(last)) => first..size.min(last + 1),
        (Some(first), None) => first..size,
        (None, Some(count)) => size.saturating_sub(count)..size,
        (None, None) => return None,
    };
    (range.start < range.end).then_some(range)
}

fn complete(objects: &Objects, id: &str, head: &Head) -> Answer {
    let Some(parts) = objects.multipart.close(id) else {
        return error("404 Not Found", "NoSuchUpload", head);
    };
    let (bucket, key) = head.place();
    match objects.put(&head.path, head, parts) {
        Ok(stored) => {
            let fields = [("Location", "/"), ("Bucket", bucket), ("Key", key), ("ETag", &*stored.etag)];
            xml("CompleteMultipartUploadResult", &fields)
        }
        Err(refused) => refuse(&refused, head),
    }
}

/// Always one page: nothing here has more objects than a client takes.
fn list(objects: &Objects, bucket: &str, head: &Head) -> Answer {
    let prefix = head.query("prefix").unwrap_or_default();
    let found = objects.list(&format!("{bucket}/{prefix}"));
    let count = found.len();
    let mut body = format!(
        "<ListBucketResult><Name>{}</Name><Prefix>{}</Prefix><KeyCount>{count}</KeyCount>\
         <MaxKeys>{count}</MaxKeys><IsTruncated>false</IsTruncated>",
        escaped(bucket),
        escaped(prefix)
    );
    for (path, stored) in found {
        let key = path.split_once('/').map_or("", |(_, key)| key);
        let _ = write!(
            body,
            "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size>\
             <StorageClass>STANDARD</StorageClass></Contents>",
            escaped(key),
            stored.modified.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            escaped(&stored.etag),
            stored.size
        );
    }
    body.push_str("</ListBucketResult>");
    text(body)
}

fn refuse(refused: &Refused, head: &Head) -> Answer {
    match refused {
        Refused::Precondition => error("412 Precondition Failed", "PreconditionFailed", head),
        Refused::Missing => error("404 Not Found", "NoSuchKey", head),
    }
}

fn error(status: &'static str, code: &str, head: &Head) -> Answer {
    let message = format!("{} {}", head.method, head.path);
    Answer { status, ..xml("Error", &[("Code", code), ("Message", &message)]) }
}

fn xml(root: &str, fields: &[(&str, &str)]) -> Answer {
    let inner: String =
        fields.iter().map(|(name, value)| format!("<{name}>{}</{name}>", escaped(value))).collect();
    text(format!("<{root}>{inner}</{root}>"))
}

fn text(body: String) -> Answer {
    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}");
    Answer {
        status: "200 OK",
        headers: "Content-Type: application/xml\r\n".to_owned(),
        content: Content::Text(body),
    }
}

fn empty(status: &'static str, headers: &str) -> Answer {
    Answer { status, headers: headers.to_owned(), content: Content::Text(String::new()) }
}

fn etag(tag: &str) -> String {
    format!("ETag: {tag}\r\n")
}

/// A time as HTTP writes it.
pub(super) fn http_date(time: Timestamp) -> String {
    DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap_or_default()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
