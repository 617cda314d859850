//! Markup of which nothing that was not written in this program is markup.
//!
//! Tags and attributes' names are literals; every value and every text is escaped, also what no terminal and no reader
//! should obey. It must not know what it says.

use std::fmt::{Display, Write as _};

/// An attribute.
pub(super) type Attribute<'a> = (&'static str, &'a dyn Display);

/// XML or HTML that is being written.
#[derive(Debug, Default)]
pub(super) struct Markup(String);

impl Markup {
    /// Opens an element.
    pub(super) fn open(&mut self, tag: &'static str, attributes: &[Attribute<'_>]) {
        self.begin(tag, attributes);
        self.0.push('>');
    }

    /// Closes it.
    pub(super) fn close(&mut self, tag: &'static str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "</{tag}>");
    }

    /// An element without content.
    pub(super) fn empty(&mut self, tag: &'static str, attributes: &[Attribute<'_>]) {
        self.begin(tag, attributes);
        self.0.push_str("/>\n");
    }

    /// An element that holds nothing but text.
    pub(super) fn element(&mut self, tag: &'static str, attributes: &[Attribute<'_>], text: &str) {
        self.open(tag, attributes);
        self.text(text);
        self.close(tag);
    }

    /// Text.
    pub(super) fn text(&mut self, text: &str) {
        self.0.push_str(&escaped(text));
    }

    /// Text of several lines.
    pub(super) fn lines(&mut self, text: &str) {
        for line in text.lines() {
            self.text(line);
            self.0.push('\n');
        }
    }

    /// Markup that is in this program as it is.
    pub(super) fn literal(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    /// What was written apart.
    pub(super) fn append(&mut self, markup: &Markup) {
        self.0.push_str(&markup.0);
    }

    /// All of it.
    pub(super) fn into_string(self) -> String {
        self.0
    }

    fn begin(&mut self, tag: &'static str, attributes: &[Attribute<'_>]) {
        let _ = write!(self.0, "<{tag}");
        for (name, value) in attributes {
            let _ = write!(self.0, " {name}=\"{}\"", escaped(&value.to_string()));
        }
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML has no control characters; those of direction would let a name look like another.
            letter if letter.is_control() || is_odd(letter) => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// Marks of direction, and what is no character.
const fn is_odd(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_told_becomes_markup() {
        let hostile = "</text><script>alert('1')</script>\" onload=\"x\u{1b}[2J\u{202e}\n&lt;";
        let mut markup = Markup::default();
        markup.element("text", &[("class", &hostile)], hostile);
        let written = markup.into_string();
        assert_eq!(written.matches('<').count(), 2, "{written}");
        assert_eq!(written.matches('>').count(), 2, "{written}");
        assert_eq!(written.matches('"').count(), 2, "{written}");
        assert!(!written.contains('\u{1b}') && !written.contains('\u{202e}'), "{written}");
        assert!(written.contains("&amp;lt;"), "{written}");
        assert_eq!(written.lines().count(), 1, "{written}");
    }
}
