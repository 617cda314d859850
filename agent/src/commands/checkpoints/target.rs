//! What the command line names: `NAMESPACE/WORKLOAD[/LINEAGE[/GENERATION]]`, and for `list` less of it.

use checkpoint::key::{GenerationNumber, LineageId, Workload};
use std::fmt;
use std::str::FromStr;

/// A workload, one of its lineages, or one generation of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The namespace.
    pub namespace: String,
    /// The workload.
    pub workload: String,
    /// The lineage, if it was named.
    pub lineage: Option<LineageId>,
    /// The generation, if it was named.
    pub generation: Option<GenerationNumber>,
}

/// A namespace, or one workload of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The namespace.
    pub namespace: String,
    /// The workload, if it was named.
    pub workload: Option<String>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (namespace, workload, lineage, number) = match parts[..] {
            [namespace, workload] => (namespace, workload, None, None),
            [namespace, workload, lineage] => (namespace, workload, Some(lineage), None),
            [namespace, workload, lineage, number] => (namespace, workload, Some(lineage), Some(number)),
            _ => return Err("write NAMESPACE/WORKLOAD[/LINEAGE[/GENERATION]]".into()),
        };
        names(namespace, Some(workload))?;
        Ok(Self {
            namespace: namespace.to_owned(),
            workload: workload.to_owned(),
            lineage: lineage.map(LineageId::new).transpose().map_err(|error| error.to_string())?,
            generation: number.map(generation).transpose()?,
        })
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, workload) = match text.split_once('/') {
            Some((namespace, workload)) => (namespace, Some(workload)),
            None => (text, None),
        };
        if workload.is_some_and(|workload| workload.contains('/')) {
            return Err("write NAMESPACE or NAMESPACE/WORKLOAD; `show` looks at one lineage".into());
        }
        names(namespace, workload)?;
        Ok(Self { namespace: namespace.to_owned(), workload: workload.map(str::to_owned) })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.workload)?;
        if let Some(lineage) = &self.lineage {
            write!(f, "/{lineage}")?;
        }
        if let Some(number) = self.generation {
            write!(f, "/{}", short(number))?;
        }
        Ok(())
    }
}

/// A generation as people write it: epoch and number in hex, without the zeros that its key begins with.
#[must_use]
pub fn short(number: GenerationNumber) -> String {
    format!("{:x}-{:x}", number.epoch, number.n)
}

fn generation(text: &str) -> Result<GenerationNumber, String> {
    let hex = |digits: &str| {
        let plain = (1..=16).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
    };
    text.split_once('-')
        .and_then(|(epoch, n)| Some(GenerationNumber { epoch: hex(epoch)?, n: hex(n)? }))
        .ok_or_else(|| format!("{text:?} is no generation: write EPOCH-N as `show` lists them, such as 1-2"))
}

/// Says what is wrong with names before the store is asked.
fn names(namespace: &str, workload: Option<&str>) -> Result<(), String> {
    Workload::new("any", namespace, workload.unwrap_or("any")).map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_it_is_written() {
        for text in ["chat/llama", "chat/llama/llama-0", "chat/llama/llama-0/1-1f"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        let long = "chat/llama/llama-0/0000000000000001-000000000000001f".parse::<Target>().unwrap();
        assert_eq!(
            long,
            "chat/llama/llama-0/1-1f".parse().unwrap(),
            "the spelling of the key is the same one"
        );
    }

    #[test]
    fn what_is_no_target_is_refused_with_the_form_of_one() {
        for text in ["", "chat", "chat/llama/0/1-1/x"] {
            assert!(text.parse::<Target>().unwrap_err().contains("NAMESPACE/WORKLOAD"), "{text:?}");
        }
        assert!("chat/llama/llama-0/newest".parse::<Target>().unwrap_err().contains("EPOCH-N"));
        assert!("Chat/llama".parse::<Target>().unwrap_err().contains("namespace \"Chat\""));
        assert!("chat/../x".parse::<Target>().is_err());
    }

    #[test]
    fn a_place_is_a_namespace_or_a_workload() {
        assert_eq!("chat".parse::<Place>().unwrap().workload, None);
        assert_eq!("chat/llama".parse::<Place>().unwrap().workload.as_deref(), Some("llama"));
        assert!("chat/llama/llama-0".parse::<Place>().unwrap_err().contains("show"));
    }
}
