//! What stands behind an error.

use std::error::Error;

/// An error with all its causes, in one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        text = format!("{text}: {cause}");
    }
    text
}

/// The cause behind all others; the error itself if it names none.
pub fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    causes(error).last().unwrap_or(error)
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause: &&'a (dyn Error + 'static)| (*cause).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{what}")]
    struct Layer {
        what: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn a_chain_ends_with_its_innermost_cause() {
        let refused = Layer { what: "refused", source: None };
        let connect = Layer { what: "connect", source: Some(Box::new(refused)) };
        let get = Layer { what: "GET /", source: Some(Box::new(connect)) };
        assert_eq!(chain(&get), "GET /: connect: refused");
        assert_eq!(innermost(&get).to_string(), "refused");
        assert_eq!(chain(innermost(&get)), "refused");
    }
}
