//! The head of a slot file: the tokens that are in it.
//!
//! `llama_state_seq_save_file` (llama.cpp, `src/llama-context.cpp`): magic, version, number of words, words. In older
//! builds the words are the tokens; since state version 1 of the server they are packed: `LLAMA_TOKEN_NULL`, the version,
//! the number of tokens, the tokens, the number of media keys, the media. A file with media is left unexplained.

/// `ggsq`, little endian.
const MAGIC: u32 = 0x6767_7371;
/// `LLAMA_TOKEN_NULL`, which no token is.
const NULL: i32 = -1;
/// The packed form that is known.
const PACKED: i32 = 1;
/// The longest head that is looked at, in bytes: four million tokens.
pub(super) const HEAD_MAX: u64 = 16 * 1024 * 1024;

/// The tokens in a file that begins with `head`; `None` if the format is not understood.
pub(super) fn tokens(head: &[u8]) -> Option<Vec<i32>> {
    let mut words = head.as_chunks::<4>().0.iter().copied().map(u32::from_le_bytes);
    if words.next()? != MAGIC {
        return None;
    }
    // Any version: the list that follows is checked by itself.
    let _version = words.next()?;
    let count = usize::try_from(words.next()?).ok()?;
    let listed: Vec<i32> = words.take(count).map(u32::cast_signed).collect();
    if listed.len() != count {
        return None;
    }
    let tokens = match listed.split_first() {
        Some((&NULL, packed)) => match packed {
            [PACKED, tokens, rest @ ..] => {
                let (tokens, media) = rest.split_at_checked(usize::try_from(*tokens).ok()?)?;
                if media != [0] {
                    return None;
                }
                tokens
            }
            _ => return None,
        },
        _ => &listed,
    };
    (!tokens.is_empty() && tokens.iter().all(|token| *token >= 0)).then(|| tokens.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(words: &[i32]) -> Vec<u8> {
        let head = [MAGIC.cast_signed(), 4, words.len() as i32];
        head.iter().chain(words).flat_map(|word| word.to_le_bytes()).chain([9; 20]).collect()
    }

    #[test]
    fn the_tokens_of_a_packed_and_of_a_plain_list_are_found() {
        // As build b11669 wrote it: 3 tokens, no media.
        assert_eq!(tokens(&file(&[-1, 1, 3, 1, 259, 311, 0])), Some(vec![1, 259, 311]));
        assert_eq!(tokens(&file(&[1, 259, 311])), Some(vec![1, 259, 311]));
    }

    #[test]
    fn what_is_not_understood_is_left_unexplained() {
        assert_eq!(tokens(b""), None);
        assert_eq!(tokens(b"GGUF and so on and on"), None);
        assert_eq!(tokens(&file(&[])), None, "an empty slot");
        assert_eq!(tokens(&file(&[-1, 2, 1, 5, 0])), None, "a newer packed form");
        assert_eq!(tokens(&file(&[-1, 1, 1, 5, 1, 7])), None, "media");
        assert_eq!(tokens(&file(&[-1, 1, 900, 5, 0])), None, "more tokens than words");
        assert_eq!(tokens(&file(&[-1, 1, -4, 5, 0])), None, "a negative number");
        assert_eq!(tokens(&file(&[1, -1, 4])), None, "the null token in the middle");
        assert_eq!(tokens(&file(&[1, 2, 3])[..20]), None, "cut short");
    }
}
