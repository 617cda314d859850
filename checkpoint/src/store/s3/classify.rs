//! From an SDK error to what a caller would do about it.

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
};

use crate::store::StoreError;

/// Sorts by HTTP status and S3's own error code (API reference, "Error responses").
pub(super) fn classify<E>(error: SdkError<E, HttpResponse>, bucket: &str, key: &str) -> StoreError
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    let status = error.raw_response().map(|raw| raw.status().as_u16());
    let code = error.code().unwrap_or_default().to_owned();
    let message = match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => DisplayErrorContext(&error).to_string(),
    };
    match error {
        SdkError::ServiceError(_) | SdkError::ResponseError(_) => {
            by_answer(status, &code, message, bucket, key)
        }
        // Timeouts, refused and broken connections, and credentials that could not be fetched: all of them may pass.
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) => StoreError::unreachable(message),
        _ => StoreError::permanent(message),
    }
}

fn by_answer(status: Option<u16>, code: &str, message: String, bucket: &str, key: &str) -> StoreError {
    let key = key.to_owned();
    match (status, code) {
        (_, "NoSuchBucket") => StoreError::NoSuchBucket { bucket: format!("the bucket {bucket}") },
        (
            _,
            "SlowDown"
            | "Throttling"
            | "ThrottlingException"
            | "RequestLimitExceeded"
            | "TooManyRequests"
            | "KMS.ThrottlingException",
        ) => StoreError::Throttled { message },
        (_, "ConditionalRequestConflict" | "OperationAborted") => StoreError::Conflict { key },
        (_, "PreconditionFailed") => StoreError::ConditionFailed { key },
        (_, "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
            StoreError::WrongRegion { message }
        }
        // Sent anew they are signed anew, with fresh credentials and the clock corrected; a digest that does not match was
        // damaged on the way.
        (
            _,
            "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestTimeTooSkewed"
            | "RequestTimeout"
            | "BadDigest"
            | "XAmzContentChecksumMismatch"
            | "InternalError",
        ) => StoreError::transient(message),
        (_, denied) if denied.starts_with("KMS.") => StoreError::Denied { key, message },
        (Some(301 | 307 | 308), _) => StoreError::WrongRegion { message },
        (Some(401 | 403), _) => StoreError::Denied { key, message },
        (Some(404), _) => StoreError::NotFound { key },
        (Some(409), _) => StoreError::Conflict { key },
        (Some(412), _) => StoreError::ConditionFailed { key },
        (Some(429 | 503), _) => StoreError::Throttled { message },
        (Some(408 | 500..=599), _) => StoreError::transient(message),
        // An answer that is not S3's, or none that could be read: a proxy, a captive portal, a wrong port.
        (Some(200..=299) | None, _) => StoreError::transient(format!("the answer is not S3's: {message}")),
        _ => StoreError::permanent(format!("{key}: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_asks_for_its_own_reaction() {
        let category = |status, code: &str| by_answer(Some(status), code, String::new(), "b", "k").category();
        for (status, code, expected) in [
            (404, "NoSuchKey", "not_found"),
            (404, "NoSuchBucket", "no_such_bucket"),
            (412, "PreconditionFailed", "condition_failed"),
            (409, "ConditionalRequestConflict", "conflict"),
            (503, "SlowDown", "throttled"),
            (503, "", "throttled"),
            (429, "", "throttled"),
            (500, "InternalError", "transient"),
            (400, "RequestTimeout", "transient"),
            (400, "BadDigest", "transient"),
            (400, "ExpiredToken", "transient"),
            (403, "AccessDenied", "denied"),
            (400, "KMS.DisabledException", "denied"),
            (301, "PermanentRedirect", "wrong_region"),
            (400, "AuthorizationHeaderMalformed", "wrong_region"),
            (400, "InvalidArgument", "permanent"),
        ] {
            assert_eq!(category(status, code), expected, "{status} {code}");
        }
    }
}
