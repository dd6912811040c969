//! Columns of text, and numbers as people read them.

use std::time::Duration;

/// Rows whose cells line up. The last column is not padded.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<usize>,
}

impl Table {
    /// A table with a first row of column names.
    pub(crate) fn new<const N: usize>(names: [&str; N]) -> Self {
        let mut table = Self::default();
        table.row(names);
        table
    }

    /// Sets a column to the right, for numbers.
    pub(crate) fn align_right(mut self, column: usize) -> Self {
        self.right.push(column);
        self
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [impl Into<String>; N]) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The lines of the table.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().enumerate().map(|(column, cell)| match widths[column] {
                width if self.right.contains(&column) => format!("{cell:>width$}"),
                _ if column + 1 == row.len() => cell.clone(),
                width => format!("{cell:<width$}"),
            });
            text += cells.collect::<Vec<_>>().join("  ").trim_end();
            text.push('\n');
        }
        text
    }
}

/// `0 B`, `1.5 kB`, `12.3 MB`, `4.0 GB`: three figures, steps of 1000.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = "B";
    for larger in ["kB", "MB", "GB", "TB"] {
        // 999.95 would be printed as 1000.0.
        if value < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// `0.3s`, `12.0s`, `3m20s`, `1h02m`.
pub(crate) fn duration(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1}s", time.as_secs_f64()),
        seconds @ 60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_line_up() {
        let mut table = Table::new(["NAME", "SIZE", "WHAT"]).align_right(1);
        table.row(["a", "1 B", "x"]);
        table.row(["long", "10 kB", ""]);
        assert_eq!(table.render(), "NAME   SIZE  WHAT\na       1 B  x\nlong  10 kB\n");
    }

    #[test]
    fn numbers_are_short() {
        for (count, text) in
            [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (999_960, "1.0 MB"), (12_345_678, "12.3 MB")]
        {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(duration(Duration::from_millis(340)), "0.3s");
        assert_eq!(duration(Duration::from_secs(200)), "3m20s");
        assert_eq!(duration(Duration::from_secs(3725)), "1h02m");
    }
}
