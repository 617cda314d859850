//! A client of a server's administrator: buckets and policies, which are not lifeboat's to make.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};

pub(crate) fn client(endpoint: &str, access_key: &str, secret: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new(access_key, secret, None, None, "test"))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

/// A new bucket on versitygw, in which our account may do what `actions` say and nothing else. Its name, and the
/// administrator, who may look into it.
pub(crate) async fn bucket_that_allows(actions: &[&str]) -> (String, Client) {
    let root = crate::variable("LIFEBOAT_S3_ROOT");
    let (access_key, secret) = root.split_once(':').expect("access key and secret with a colon between them");
    let client = client(&crate::variable("LIFEBOAT_S3_ENDPOINT"), access_key, secret);
    let bucket = format!("allows-{}", checkpoint::hash::nonce());
    client.create_bucket().bucket(&bucket).send().await.unwrap();
    let policy = serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": crate::variable("AWS_ACCESS_KEY_ID"),
            "Action": actions,
            "Resource": [format!("arn:aws:s3:::{bucket}"), format!("arn:aws:s3:::{bucket}/*")],
        }],
    });
    client.put_bucket_policy().bucket(&bucket).policy(policy.to_string()).send().await.unwrap();
    (bucket, client)
}
