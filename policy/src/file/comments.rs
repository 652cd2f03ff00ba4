//! `fmt`: a policy file in its canonical form, with its comments.
//!
//! The file is read, and written anew. Each comment goes where the line it stood at, or the next one after it, has gone.

use std::collections::BTreeMap;
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
    let comments = comments(text);
    // A list whose names have comments keeps a line for each name.
    let spread = |path: &str, count: usize| {
        let line = |index: usize| places.get(&format!("{path}/{index}")).map(|place| place.value.0);
        let (Some(first), Some(last)) = (line(0), line(count.saturating_sub(1))) else { return false };
        first != last && comments.iter().any(|comment| (first..=last).contains(&comment.line))
    };
    let lines = lines(&file, &spread);
    let mut of_lines = attach(comments, &lines, &places);
    let mut formatted = String::new();
    for line in lines {
        let mut beside = String::new();
        let of_line = (!line.path.is_empty()).then(|| of_lines.remove(&line.path)).flatten();
        for comment in of_line.unwrap_or_default() {
            if comment.beside && beside.is_empty() {
                beside = format!("  {}", comment.text);
            } else {
                Line { indent: line.indent, text: comment.text, path: String::new() }.push_to(&mut formatted);
            }
        }
        Line { text: format!("{}{beside}", line.text), ..line }.push_to(&mut formatted);
    }
    for comment in of_lines.remove("").unwrap_or_default() {
        formatted.push_str(&comment.text);
        formatted.push('\n');
    }
    match parse(&formatted) {
        Ok(again) if again == file => Ok(formatted),
        _ => Err(FormatError::Differs),
    }
}

/// The comments of each line to be written, by its path: those beside what it says, and those before it. What comes after
/// everything belongs to no path.
fn attach(
    comments: Vec<Comment>,
    lines: &[Line],
    places: &BTreeMap<String, Place>,
) -> BTreeMap<String, Vec<Comment>> {
    let mut stops: Vec<((u64, u64), &str)> = (lines.iter())
        .filter_map(|line| Some((places.get(&line.path)?.key, line.path.as_str())))
        .filter(|(_, path)| !path.is_empty())
        .collect();
    stops.sort_unstable();
    let mut of_lines = BTreeMap::<String, Vec<Comment>>::new();
    for mut comment in comments {
        let same = stops.iter().rfind(|((line, _), _)| comment.beside && *line == comment.line);
        let next = || stops.iter().find(|((line, _), _)| *line > comment.line);
        comment.beside = same.is_some();
        let path = same.or_else(next).map_or("", |(_, path)| path);
        of_lines.entry(path.to_owned()).or_default().push(comment);
    }
    of_lines
}

/// A comment, from its `#` to the end of the line.
struct Comment {
    line: u64,
    text: String,
    /// Whether something stands before it in its line.
    beside: bool,
}

/// Every comment, in order. The text is known to be YAML.
fn comments(text: &str) -> Vec<Comment> {
    let mut found = Vec::new();
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
                Some('"') if char == '\\' => {
                    chars.next();
                }
                Some('\'') if char == '\'' && chars.peek().is_some_and(|next| next.1 == '\'') => {
                    chars.next();
                }
                Some(open) if char == open => quote = None,
                Some(_) => {}
                None if char == '#' && before.is_whitespace() => {
                    let text = line[at..].trim_end().to_owned();
                    found.push(Comment { line: number, text, beside: !line[..at].trim().is_empty() });
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

/// Where something is: line and column, from 1.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    /// Of the name of a field; of an item of a list its own.
    pub(super) key: (u64, u64),
    /// Of what it says.
    pub(super) value: (u64, u64),
}

/// The place of each node, by its path, such as `policies/0/rules/2/from`.
pub(super) fn places(text: &str) -> BTreeMap<String, Place> {
    let mut places = BTreeMap::new();
    if let Ok(root) = serde_saphyr::from_str_with_options::<Spanned<Node>>(text, super::yaml::options(text)) {
        note(&root, None, String::new(), &mut places);
    }
    places
}

fn note(node: &Spanned<Node>, key: Option<(u64, u64)>, path: String, places: &mut BTreeMap<String, Place>) {
    let below =
        |name: &dyn fmt::Display| if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
    match &node.value {
        Node::Scalar => {}
        Node::List(items) => {
            items.iter().enumerate().for_each(|(i, item)| note(item, None, below(&i), places));
        }
        Node::Map(fields) => fields.iter().for_each(|(name, value)| {
            let key = (name.referenced.line(), name.referenced.column());
            note(value, Some(key), below(&name.value), places);
        }),
    }
    let value = (node.referenced.line(), node.referenced.column());
    places.insert(path, Place { key: key.unwrap_or(value), value });
}

/// Any YAML, as far as places go.
enum Node {
    Scalar,
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
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
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    fields.push((key, map.next_value()?));
                }
                Ok(Node::Map(fields))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
