//! A TOML file as it stands there: values with their lines, and every mistake at once.

use std::{collections::BTreeMap, fmt, ops::Range, str::FromStr};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Something wrong, and where. Flags have no line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) line: Option<usize>,
    pub(crate) what: String,
}

/// All that is wrong with a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mistakes(pub(crate) Vec<Mistake>);

impl Mistakes {
    pub(crate) fn add(&mut self, line: Option<usize>, what: impl Into<String>) {
        self.0.push(Mistake { line, what: what.into() });
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            match mistake.line {
                Some(line) => write!(f, "line {line}: {}", mistake.what)?,
                None => f.write_str(&mistake.what)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// A value and the line it stands on.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) line: Option<usize>,
}

/// A string, or the single entry of an inline table.
#[derive(Clone, Debug)]
pub(crate) enum WordOrPair {
    Word(String),
    Pair(String, String),
    Flag(String, bool),
}

/// A string, or a table of its own.
pub(crate) enum WordOrTable<'a> {
    Word(String),
    Table(Table<'a>),
}

/// One table being read: keys are taken out, and what is left over is unknown.
pub(crate) struct Table<'a> {
    text: &'a str,
    entries: DeTable<'a>,
    /// What the table is called in messages.
    name: &'static str,
}

impl<'a> Table<'a> {
    /// The whole file; syntax errors become mistakes and the rest is read all the same.
    pub(crate) fn parse(text: &'a str, mistakes: &mut Mistakes) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let line = error.span().map(|span| line_of(text, &span));
            mistakes.add(line, error.message());
        }
        Self { text, entries: table.into_inner(), name: "the configuration" }
    }

    pub(crate) fn string(&mut self, key: &str, mistakes: &mut Mistakes) -> Option<At<String>> {
        self.take(key, "a string", mistakes, |value| value.as_str().map(str::to_owned))
    }

    pub(crate) fn integer(&mut self, key: &str, mistakes: &mut Mistakes) -> Option<At<usize>> {
        self.take(key, "a whole number, zero or more", mistakes, |value| {
            value.as_integer().and_then(|integer| usize::from_str(integer.as_str()).ok())
        })
    }

    pub(crate) fn boolean(&mut self, key: &str, mistakes: &mut Mistakes) -> Option<At<bool>> {
        self.take(key, "true or false", mistakes, toml::de::DeValue::as_bool)
    }

    pub(crate) fn number(&mut self, key: &str, mistakes: &mut Mistakes) -> Option<At<f64>> {
        self.take(key, "a number", mistakes, |value| {
            let whole = value.as_integer().and_then(|integer| f64::from_str(integer.as_str()).ok());
            whole.or_else(|| value.as_float().and_then(|float| f64::from_str(float.as_str()).ok()))
        })
    }

    /// An array of strings, or one string alone.
    pub(crate) fn strings(&mut self, key: &str, mistakes: &mut Mistakes) -> Option<At<Vec<At<String>>>> {
        let text = self.text;
        if self.entries.get(key).is_some_and(|value| value.get_ref().is_str()) {
            let one = self.string(key, mistakes)?;
            return Some(At { line: one.line, value: vec![one] });
        }
        self.take(key, "an array of strings", mistakes, |value| {
            let strings = value.as_array()?.iter().map(|item| {
                let line = Some(line_of(text, &item.span()));
                item.get_ref().as_str().map(|value| At { value: value.to_owned(), line })
            });
            strings.collect()
        })
    }

    pub(crate) fn word_or_pair(&mut self, key: &str, mistakes: &mut Mistakes) -> Option<At<WordOrPair>> {
        self.take(key, "a string or { kind = \"name\" }", mistakes, |value| {
            if let Some(word) = value.as_str() {
                return Some(WordOrPair::Word(word.to_owned()));
            }
            let table = value.as_table()?;
            let (kind, value) = table.iter().next().filter(|_| table.len() == 1)?;
            let (kind, value) = (kind.get_ref().to_string(), value.get_ref());
            match value.as_bool() {
                Some(flag) => Some(WordOrPair::Flag(kind, flag)),
                None => Some(WordOrPair::Pair(kind, value.as_str()?.to_owned())),
            }
        })
    }

    /// A table of strings: `{ key = "value", ... }`.
    pub(crate) fn pairs(
        &mut self,
        key: &str,
        mistakes: &mut Mistakes,
    ) -> Option<At<BTreeMap<String, String>>> {
        self.take(key, "a table of strings", mistakes, |value| {
            let pairs = value
                .as_table()?
                .iter()
                .map(|(key, value)| Some((key.get_ref().to_string(), value.get_ref().as_str()?.to_owned())));
            pairs.collect()
        })
    }

    /// A table of strings, each with its line.
    pub(crate) fn words(&mut self, key: &str, m: &mut Mistakes) -> Option<At<BTreeMap<String, At<String>>>> {
        let text = self.text;
        self.take(key, "a table of strings", m, |value| {
            let words = value.as_table()?.iter().map(|(key, value)| {
                let line = Some(line_of(text, &value.span()));
                Some((key.get_ref().to_string(), At { value: value.get_ref().as_str()?.to_owned(), line }))
            });
            words.collect()
        })
    }

    /// A string, or `{ key = value, ... }` to be read like any table.
    pub(crate) fn word_or_table(
        &mut self,
        key: &str,
        name: &'static str,
        mistakes: &mut Mistakes,
    ) -> Option<At<WordOrTable<'a>>> {
        let (_, value) = self.entries.remove_entry(key)?;
        let line = Some(line_of(self.text, &value.span()));
        if let Some(word) = value.get_ref().as_str() {
            return Some(At { value: WordOrTable::Word(word.to_owned()), line });
        }
        let found = value.get_ref().type_str();
        let DeValue::Table(entries) = value.into_inner() else {
            mistakes.add(line, format!("{key}: expected a string or a table, found {found}"));
            return None;
        };
        Some(At { value: WordOrTable::Table(Table { text: self.text, entries, name }), line })
    }

    /// The tables of `[[key]]`, each with its line.
    pub(crate) fn tables(
        &mut self,
        key: &str,
        name: &'static str,
        mistakes: &mut Mistakes,
    ) -> Vec<At<Table<'a>>> {
        let Some((_, value)) = self.entries.remove_entry(key) else { return Vec::new() };
        let line = Some(line_of(self.text, &value.span()));
        let found = value.get_ref().type_str();
        let DeValue::Array(items) = value.into_inner() else {
            mistakes.add(line, format!("write [[{key}]], not {found}"));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items {
            let line = Some(line_of(self.text, &item.span()));
            let found = item.get_ref().type_str();
            if let DeValue::Table(entries) = item.into_inner() {
                tables.push(At { value: Table { text: self.text, entries, name }, line });
            } else {
                mistakes.add(line, format!("{key}: expected a table, found {found}"));
            }
        }
        tables
    }

    /// Whatever was not taken is unknown.
    pub(crate) fn finish(self, known: &[&str], mistakes: &mut Mistakes) {
        for key in self.entries.keys() {
            let line = Some(line_of(self.text, &key.span()));
            let list = known.join(", ");
            mistakes.add(line, format!("unknown key {:?} in {}; known are {list}", key.get_ref(), self.name));
        }
    }

    fn take<T>(
        &mut self,
        key: &str,
        expected: &str,
        mistakes: &mut Mistakes,
        read: impl Fn(&DeValue<'a>) -> Option<T>,
    ) -> Option<At<T>> {
        let (_, value): (_, Spanned<DeValue<'a>>) = self.entries.remove_entry(key)?;
        let line = Some(line_of(self.text, &value.span()));
        let read = read(value.get_ref());
        if read.is_none() {
            mistakes.add(line, format!("{key}: expected {expected}, found {}", value.get_ref().type_str()));
        }
        read.map(|value| At { value, line })
    }
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    text[..span.start.min(text.len())].matches('\n').count() + 1
}
