//! `fmt`: a policy file in its canonical form, with its comments.
//!
//! The file is read, and written anew. Each comment goes to where the line it stood at, or the next one after it, has gone.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::write::{Line, lines};
use super::{FileError, parse};

/// Why a file was not formatted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It does not make sense.
    #[error(transparent)]
    File(#[from] FileError),
    /// The canonical form would not be the same file: a bug; the file stays as it is.
    #[error("the canonical form of the file would read differently; the file was left as it is")]
    Differs,
}

/// The canonical form of a file. It reads the same, has every comment, and formatting it again changes nothing.
pub fn format(text: &str) -> Result<String, FormatError> {
    let file = parse(text)?;
    let places = places(text);
    let mut comments = comments(text);
    let inside: Vec<u64> = comments.iter().map(|comment| comment.line).collect();
    // A list whose names have comments keeps a line for each name.
    let spread = |path: &str, count: usize| {
        let place = |index: usize| places.get(&format!("{path}/{index}")).copied();
        let (Some(first), Some(last)) = (place(0), place(count.saturating_sub(1))) else { return false };
        first != last && inside.iter().any(|line| (first..=last).contains(line))
    };
    let mut formatted = String::new();
    for line in lines(&file, &spread) {
        // A blank line between sections belongs before the comments of the next one.
        let place = places.get(&line.path).copied().filter(|_| !line.path.is_empty());
        let mut beside = String::new();
        while let (Some(place), Some(comment)) = (place, comments.front()) {
            if comment.line > place {
                break;
            }
            let Some(comment) = comments.pop_front() else { break };
            if comment.line == place && comment.beside && beside.is_empty() {
                beside = format!("  {}", comment.text);
            } else {
                Line { indent: line.indent, text: comment.text, path: String::new() }.push_to(&mut formatted);
            }
        }
        Line { text: format!("{}{beside}", line.text), ..line }.push_to(&mut formatted);
    }
    for comment in comments {
        formatted.push_str(&comment.text);
        formatted.push('\n');
    }
    match parse(&formatted) {
        Ok(again) if again == file => Ok(formatted),
        _ => Err(FormatError::Differs),
    }
}

/// A comment, from its `#` to the end of the line.
struct Comment {
    line: u64,
    text: String,
    /// Whether something stands before it in its line.
    beside: bool,
}

/// Every comment, in order. The text is known to be YAML.
fn comments(text: &str) -> VecDeque<Comment> {
    let mut found = VecDeque::new();
    let mut quote: Option<char> = None;
    // The indentation of the line that opened a block of text; lines further in belong to the block.
    let mut block: Option<usize> = None;
    for (line, number) in text.lines().zip(1..) {
        let indent = line.len() - line.trim_start().len();
        if let Some(opened) = block {
            if line.trim().is_empty() || indent > opened {
                continue;
            }
            block = None;
        }
        let mut before = ' ';
        let mut chars = line.char_indices().peekable();
        let mut end = line.len();
        while let Some((at, char)) = chars.next() {
            match quote {
                Some('"') if char == '\\' => drop(chars.next()),
                Some('\'') if char == '\'' && chars.peek().is_some_and(|next| next.1 == '\'') => {
                    drop(chars.next());
                }
                Some(open) if char == open => quote = None,
                Some(_) => {}
                None if char == '#' && before.is_whitespace() => {
                    let text = line[at..].trim_end().to_owned();
                    found.push_back(Comment { line: number, text, beside: !line[..at].trim().is_empty() });
                    end = at;
                    break;
                }
                // A quote inside a word is part of the word.
                None if matches!(char, '"' | '\'') && (before.is_whitespace() || "[{,".contains(before)) => {
                    quote = Some(char);
                }
                None => {}
            }
            before = char;
        }
        let opener = line[..end].trim_end().rsplit(' ').next().unwrap_or_default();
        let is_opener =
            opener.starts_with(['|', '>']) && opener[1..].chars().all(|c| "+-0123456789".contains(c));
        if quote.is_none() && is_opener {
            block = Some(indent);
        }
    }
    found
}

/// The line of each node, by its path.
fn places(text: &str) -> BTreeMap<String, u64> {
    let mut places = BTreeMap::new();
    if let Ok(root) = serde_saphyr::from_str::<Spanned<Node>>(text) {
        note(&root, String::new(), &mut places);
    }
    places
}

fn note(node: &Spanned<Node>, path: String, places: &mut BTreeMap<String, u64>) {
    let below =
        |name: &dyn fmt::Display| if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
    match &node.value {
        Node::Scalar => {}
        Node::List(items) => items.iter().enumerate().for_each(|(i, item)| note(item, below(&i), places)),
        Node::Map(fields) => fields.iter().for_each(|(key, value)| note(value, below(key), places)),
    }
    places.insert(path, node.referenced.line());
}

/// Any YAML, as far as places go.
enum Node {
    Scalar,
    List(Vec<Spanned<Node>>),
    Map(Vec<(String, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        macro_rules! scalars {
            ($($visit:ident: $type:ty,)*) => {
                $(fn $visit<E>(self, _: $type) -> Result<Node, E> {
                    Ok(Node::Scalar)
                })*
            };
        }
        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("YAML")
            }

            scalars! {
                visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64, visit_u128: u128, visit_f64: f64,
                visit_str: &str,
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
                Node::deserialize(deserializer)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut fields = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    fields.push((key, map.next_value()?));
                }
                Ok(Node::Map(fields))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
