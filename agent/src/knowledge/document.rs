//! A document of few kinds of blocks, written for a terminal or as Markdown.

use comfy_table::{
    ColumnConstraint, ContentArrangement, LineStyle, Table as Grid, TableStyle, Width,
};

/// Rows one after the other.
const CLOSE: TableStyle = TableStyle::new();
/// A line between rows, where a row takes several lines.
const RULED: TableStyle = CLOSE.header_separator(RULE).row_separator(RULE);
const RULE: LineStyle = LineStyle::none().fill('─');

/// A piece of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// A title, of the level 1 or more.
    Heading(u8, String),
    /// A paragraph.
    Text(String),
    /// Points.
    List(Vec<String>),
    /// Names with values.
    Fields(Vec<(String, String)>),
    /// A table: its head, its rows.
    Table(Vec<String>, Vec<Vec<String>>),
}

/// Blocks in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document(Vec<Block>);

impl Document {
    /// Adds a title.
    pub fn heading(&mut self, level: u8, title: impl Into<String>) {
        self.0.push(Block::Heading(level, title.into()));
    }

    /// Adds a paragraph, if there is one.
    pub fn text(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !text.is_empty() {
            self.0.push(Block::Text(text));
        }
    }

    /// Adds points, if there are any, under a line that says what they are.
    pub fn list(&mut self, about: &str, points: impl IntoIterator<Item = impl Into<String>>) {
        let points: Vec<String> = points.into_iter().map(Into::into).collect();
        if !points.is_empty() {
            self.text(about);
            self.0.push(Block::List(points));
        }
    }

    /// Adds names with values; what is empty is left out.
    pub fn fields(&mut self, fields: impl IntoIterator<Item = (&'static str, String)>) {
        let fields: Vec<_> = fields
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        if !fields.is_empty() {
            self.0.push(Block::Fields(fields));
        }
    }

    /// Adds a table, if it has rows.
    pub fn table(
        &mut self,
        head: impl IntoIterator<Item = impl Into<String>>,
        rows: impl IntoIterator<Item = Vec<String>>,
    ) {
        let rows: Vec<_> = rows.into_iter().collect();
        if !rows.is_empty() {
            let head = head.into_iter().map(Into::into).collect();
            self.0.push(Block::Table(head, rows));
        }
    }

    /// Adds another document.
    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// For a terminal of so many columns.
    #[must_use]
    pub fn plain(&self, width: usize) -> String {
        let width = width.clamp(40, 200);
        let mut out = String::new();
        for (i, block) in self.0.iter().enumerate() {
            // A list belongs to the line above it.
            if i > 0 && !matches!(block, Block::List(_)) {
                out.push('\n');
            }
            match block {
                Block::Heading(1, title) => out.push_str(&title.to_uppercase()),
                Block::Heading(_, title) => out.push_str(title),
                Block::Text(text) => out.push_str(&textwrap::fill(text, wrap(width))),
                Block::List(points) => {
                    let lines: Vec<_> = points.iter().map(|p| hang(p, "  - ", width)).collect();
                    out.push_str(&lines.join("\n"));
                }
                Block::Fields(fields) => out.push_str(&plain_fields(fields, width)),
                Block::Table(head, rows) => out.push_str(&plain_table(head, rows, width)),
            }
            out.push('\n');
        }
        out
    }

    /// As GitHub's Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        for (i, block) in self.0.iter().enumerate() {
            if i > 0 {
                out.push('\n');
            }
            match block {
                Block::Heading(level, title) => {
                    let marks = "#".repeat(usize::from(*level));
                    out.push_str(&format!("{marks} {}", escape(title)));
                }
                Block::Text(text) => out.push_str(&textwrap::fill(&escape(text), wrap(95))),
                Block::List(points) => {
                    let lines: Vec<_> = points.iter().map(|p| hang(&escape(p), "- ", 95)).collect();
                    out.push_str(&lines.join("\n"));
                }
                Block::Fields(fields) => {
                    let line = |(name, value): &(String, String)| {
                        hang(
                            &format!("**{}**: {}", escape(name), escape(value)),
                            "- ",
                            95,
                        )
                    };
                    out.push_str(&fields.iter().map(line).collect::<Vec<_>>().join("\n"));
                }
                Block::Table(head, rows) => {
                    let line = |cells: &[String]| {
                        let cells: Vec<_> = cells.iter().map(|c| escape(c)).collect();
                        format!("| {} |", cells.join(" | "))
                    };
                    let rule = format!("|{}", " --- |".repeat(head.len()));
                    let mut lines = vec![line(head), rule];
                    lines.extend(rows.iter().map(|row| line(row)));
                    out.push_str(&lines.join("\n"));
                }
            }
            out.push('\n');
        }
        out
    }
}

/// What Markdown or a table of it would take for its own. A cell's lines become its breaks.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('|', _) => out.push_str("\\|"),
            ('\n', _) => out.push_str("<br>"),
            // Before anything else it opens no element.
            ('<', Some('a'..='z' | 'A'..='Z' | '/' | '!' | '?')) => out.push_str("&lt;"),
            _ => out.push(c),
        }
    }
    out
}

/// Lines break between words: a command's name is not a word with a hyphen.
fn wrap<'a>(width: usize) -> textwrap::Options<'a> {
    textwrap::Options::new(width).word_splitter(textwrap::WordSplitter::NoHyphenation)
}

/// A point whose further lines stand below its first.
fn hang(text: &str, mark: &str, width: usize) -> String {
    let indent = " ".repeat(mark.len());
    let options = wrap(width).initial_indent(mark).subsequent_indent(&indent);
    textwrap::fill(text, options)
}

fn plain_fields(fields: &[(String, String)], width: usize) -> String {
    let widest = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): &(String, String)| {
        let name = format!("{name:<widest$}  ");
        hang(value, &name, width)
    };
    fields.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Columns without lines; with lines between rows as soon as a cell takes more than one.
fn plain_table(head: &[String], rows: &[Vec<String>], width: usize) -> String {
    let grid = |style: TableStyle| {
        let mut grid = Grid::new();
        grid.load_style(style)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width.try_into().unwrap_or(u16::MAX))
            .set_header(head.iter().map(|h| h.to_uppercase()))
            .add_rows(rows);
        let last = head.len().saturating_sub(1);
        for (i, column) in grid.column_iter_mut().enumerate() {
            let padding = if i == last { 0 } else { 2 };
            column.set_padding((0, padding));
            // Wrapped between words, never within one.
            let words = rows.iter().filter_map(|row| row.get(i)).chain(head.get(i));
            let words = words.flat_map(|cell| cell.split_whitespace());
            let longest = words.map(|word| word.chars().count()).max().unwrap_or(0);
            let least = u16::try_from(longest)
                .unwrap_or(u16::MAX)
                .saturating_add(padding);
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
        }
        let lines: Vec<_> = grid
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        lines
    };
    let lines = grid(CLOSE);
    let lines = if lines.len() > rows.len() + 1 {
        grid(RULED)
    } else {
        lines
    };
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document {
        let mut document = Document::default();
        document.heading(1, "Layers");
        document.text("One | two <three <10 ms.");
        document.list(
            "Points:",
            ["a".repeat(30) + " " + &"b".repeat(30), "c".into()],
        );
        document.fields([("start", "1-5 s".into()), ("empty", String::new())]);
        document.table(
            ["layer", "what"],
            [
                vec!["L-3".into(), "word ".repeat(20)],
                vec!["L-4".into(), "x".into()],
            ],
        );
        document.table(["none"], []);
        document
    }

    #[test]
    fn a_terminals_width_is_kept() {
        for width in [40, 80, 160] {
            for line in document().plain(width).lines() {
                assert!(line.chars().count() <= width, "{line:?}");
                assert_eq!(line, line.trim_end());
            }
        }
        let wide = document().plain(160);
        assert!(wide.contains("LAYER  WHAT\n"), "{wide}");
        assert!(!wide.contains("empty") && !wide.contains("NONE"));
    }

    #[test]
    fn markdown_is_escaped() {
        let text = document().markdown();
        assert!(
            text.starts_with("# Layers\n\nOne \\| two &lt;three <10 ms.\n\nPoints:\n\n- aaa"),
            "{text}"
        );
        assert!(text.contains("- **start**: 1-5 s\n"));
        assert!(
            text.contains("| layer | what |\n| --- | --- |\n| L-3 | word"),
            "{text}"
        );
    }
}
