use super::*;

#[test]
fn an_encryption_is_one_of_three() {
    assert_eq!("bucket".parse::<Encryption>().unwrap(), Encryption::BucketDefault);
    assert_eq!("aes256".parse::<Encryption>().unwrap(), Encryption::Aes256);
    assert_eq!("kms:arn:aws:kms:x".parse::<Encryption>().unwrap(), Encryption::Kms("arn:aws:kms:x".into()));
    for bad in ["", "kms:", "kms", "AES256", "none"] {
        assert!(bad.parse::<Encryption>().unwrap_err().to_string().contains("kms:<key>"));
    }
}
