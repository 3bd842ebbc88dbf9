//! Tables of runs: CSV with a header.

use std::{collections::BTreeMap, fmt};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// Parameters.
    N,
    /// Tokens.
    D,
    /// Compute, FLOP.
    C,
    /// Loss in nats.
    Loss,
    /// Standard deviation of ln N.
    Sigma,
}

impl Quantity {
    const ALL: [Quantity; 5] = [
        Quantity::N,
        Quantity::D,
        Quantity::C,
        Quantity::Loss,
        Quantity::Sigma,
    ];

    /// Names under which a column is found unasked, in lower case.
    fn names(self) -> &'static [&'static str] {
        match self {
            Quantity::N => &["n", "params", "parameters"],
            Quantity::D => &["d", "tokens"],
            Quantity::C => &["c", "flop", "flops", "compute"],
            Quantity::Loss => &["loss", "l"],
            Quantity::Sigma => &[],
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Quantity::N => "N",
            Quantity::D => "D",
            Quantity::C => "C",
            Quantity::Loss => "loss",
            Quantity::Sigma => "sigma",
        })
    }
}

impl std::str::FromStr for Quantity {
    type Err = String;

    fn from_str(name: &str) -> Result<Quantity, String> {
        let found = Quantity::ALL
            .into_iter()
            .find(|q| q.to_string().eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("`{name}` is none of N, D, C, loss, sigma"))
    }
}

/// How a table is read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Columns that go by another name.
    pub columns: BTreeMap<Quantity, String>,
    /// Only rows in which the column has the value.
    pub filters: Vec<(String, String)>,
    /// Leave out rows in which a number is missing, rather than refuse them.
    pub skip_missing: bool,
}

/// Numbers by row.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Line of each row in the file.
    pub lines: Vec<u64>,
    /// Values of the columns that were found.
    pub values: BTreeMap<Quantity, Vec<f64>>,
    /// Rows that the filters left out.
    pub filtered: usize,
    /// Rows that were skipped because a number is missing.
    pub skipped: usize,
}

/// Why a table can't be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Not CSV.
    #[error("not a table")]
    Csv(#[from] csv::Error),
    /// Which one is meant?
    #[error("two columns are named `{0}`; rename one of them")]
    Twice(String),
    /// Two columns could be it.
    #[error("both `{0}` and `{1}` could be {2}; say which with --column {2}={0}")]
    Ambiguous(String, String, Quantity),
    /// A column was asked for.
    #[error("there is no column `{name}`; the table has {has}")]
    NoColumn {
        /// Asked for.
        name: String,
        /// All names.
        has: String,
    },
    /// Not a number, or none that can be.
    #[error(
        "line {line}: {quantity} is `{value}`, which is not a number above zero; correct it, leave the row out, or use --skip-missing if it is missing"
    )]
    NotPositive {
        /// Of the file.
        line: u64,
        /// Which column.
        quantity: Quantity,
        /// What is there.
        value: String,
    },
    /// Nothing left.
    #[error("no row is left: {filtered} don't match --where, {skipped} lack a number")]
    Empty {
        /// By --where.
        filtered: usize,
        /// By --skip-missing.
        skipped: usize,
    },
}

impl Table {
    /// Reads CSV.
    ///
    /// # Errors
    /// [`TableError`] names the column or the line.
    pub fn read(csv: impl std::io::Read, reading: &Reading) -> Result<Table, TableError> {
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_reader(csv);
        let header: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
        for (i, name) in header.iter().enumerate() {
            if header[..i].contains(name) {
                return Err(TableError::Twice(name.clone()));
            }
        }
        let place = |name: &str| {
            let at = header.iter().position(|h| h == name);
            at.ok_or_else(|| TableError::NoColumn {
                name: name.to_owned(),
                has: header.join(", "),
            })
        };
        let mut columns = Vec::new();
        for quantity in Quantity::ALL {
            if let Some(name) = reading.columns.get(&quantity) {
                columns.push((quantity, place(name)?));
                continue;
            }
            let is_it = |h: &&String| quantity.names().contains(&h.to_lowercase().as_str());
            let found: Vec<&String> = header.iter().filter(is_it).collect();
            match found[..] {
                [] => {}
                [name] => columns.push((quantity, place(name)?)),
                [first, second, ..] => {
                    return Err(TableError::Ambiguous(
                        first.clone(),
                        second.clone(),
                        quantity,
                    ));
                }
            }
        }
        let filters = reading.filters.iter();
        let filters: Vec<(usize, &str)> = filters
            .map(|(name, value)| Ok((place(name)?, value.as_str())))
            .collect::<Result<_, TableError>>()?;

        let mut table = Table::default();
        for record in reader.records() {
            let record = record?;
            let line = record
                .position()
                .expect("a record that was read has a place");
            let line = line.line();
            if !filters.iter().all(|&(at, value)| alike(&record[at], value)) {
                table.filtered += 1;
                continue;
            }
            // The reader refuses records that are shorter than the header.
            let text = |at: usize| &record[at];
            if reading.skip_missing && columns.iter().any(|&(_, at)| is_missing(text(at))) {
                table.skipped += 1;
                continue;
            }
            for &(quantity, at) in &columns {
                let value = text(at).parse::<f64>().ok();
                let Some(value) = value.filter(|v| v.is_finite() && *v > 0.0) else {
                    return Err(TableError::NotPositive {
                        line,
                        quantity,
                        value: text(at).to_owned(),
                    });
                };
                table.values.entry(quantity).or_default().push(value);
            }
            table.lines.push(line);
        }
        if table.lines.is_empty() {
            return Err(TableError::Empty {
                filtered: table.filtered,
                skipped: table.skipped,
            });
        }
        Ok(table)
    }

    /// A column, if there is one.
    pub fn column(&self, quantity: Quantity) -> Option<&[f64]> {
        self.values.get(&quantity).map(Vec::as_slice)
    }
}

/// The same text, or the same number.
fn alike(a: &str, b: &str) -> bool {
    let number = |s: &str| s.parse::<f64>().ok();
    a == b || (number(a).is_some() && number(a) == number(b))
}

fn is_missing(text: &str) -> bool {
    text.is_empty() || text.parse::<f64>().is_ok_and(f64::is_nan)
}
