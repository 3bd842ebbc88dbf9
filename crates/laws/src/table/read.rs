//! Tables of runs: text in columns with a header. Which character stands between the columns is seen from the header;
//! lines that begin with # are comments.

use super::{
    columns::{Header, Places, Quantity},
    value::{Value, value},
};
use std::collections::{BTreeMap, BTreeSet};

/// How a table is read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Columns that go by another name.
    pub columns: BTreeMap<Quantity, String>,
    /// Only rows in which the column has the value.
    pub filters: Vec<(String, String)>,
    /// Leave out rows in which a number is missing, rather than refuse them.
    pub skip_missing: bool,
    /// Which rows are checkpoints of one run.
    pub run: RunColumn,
}

/// How it is known which rows are checkpoints of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RunColumn {
    /// By a column of a usual name, if its rows have one size and several lengths each.
    #[default]
    Detect,
    /// Every row is a run of its own.
    None,
    /// By this column.
    Named(String),
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
    /// All columns, by their names.
    pub header: Vec<String>,
    /// The column that each quantity was found in.
    pub columns: BTreeMap<Quantity, String>,
    /// Columns that nothing was read from.
    pub unused: Vec<String>,
    /// Quantities that were not read because several columns may be it, and those columns.
    pub ambiguous: BTreeMap<Quantity, Vec<String>>,
    /// Which run each row is a checkpoint of, where that is known.
    pub runs: Option<Runs>,
}

/// Runs that rows are checkpoints of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    /// The column that tells them apart.
    pub column: String,
    /// Name of the run of each row.
    pub names: Vec<String>,
}

impl Runs {
    /// The number of each row's run, in the order in which runs are first met.
    pub fn numbers(&self) -> Vec<usize> {
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let names = self.names.iter();
        names
            .map(|name| {
                let next = numbers.len();
                *numbers.entry(name).or_insert(next)
            })
            .collect()
    }

    /// Rows by their run, in the order in which runs are first met.
    pub fn groups(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (row, run) in self.numbers().into_iter().enumerate() {
            match groups.get_mut(run) {
                Some(group) => group.push(row),
                None => groups.push(vec![row]),
            }
        }
        groups
    }
}

/// Bad lines that are quoted; the others are counted.
const QUOTED: usize = 10;

/// Why a table can't be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The bytes can't be had.
    #[error("can't be read")]
    Io(#[from] std::io::Error),
    /// Not text.
    #[error(
        "is neither UTF-8 text nor UTF-16 with a byte order mark; export the table as CSV in UTF-8"
    )]
    NotText,
    /// Begins as UTF-16 does, and isn't.
    #[error(
        "begins as text in UTF-16, and a part of it is none: it was cut off or damaged; export it again, as CSV in UTF-8"
    )]
    BrokenUtf16,
    /// Not CSV.
    #[error("not a table")]
    Csv(#[from] csv::Error),
    /// The first line has no names.
    #[error("the first line holds numbers ({0}), but it must name the columns, as in N,D,loss")]
    NoHeader(String),
    /// Which one is meant?
    #[error("two columns are named `{0}`; rename one of them")]
    Twice(String),
    /// One column can't be two quantities.
    #[error("column `{0}` is given as both {1} and {2}")]
    Shared(String, Quantity, Quantity),
    /// A column was asked for.
    #[error("there is no column `{name}`; the table has {has}")]
    NoColumn {
        /// Asked for.
        name: String,
        /// All names.
        has: String,
    },
    /// Not numbers, or none that can be.
    #[error("{}", bad(first, *count, *is_missing))]
    Bad {
        /// The first of them, one sentence each.
        first: Vec<String>,
        /// How many there are.
        count: usize,
        /// Whether one of them is missing.
        is_missing: bool,
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

fn bad(first: &[String], count: usize, is_missing: bool) -> String {
    let cure = match is_missing {
        true => {
            "correct them or leave the rows out; --skip-missing leaves out rows that lack a number"
        }
        false => "correct them or leave the rows out",
    };
    if let ([line], 1) = (first, count) {
        return format!(
            "{line}; {}",
            cure.replace("them", "it").replace("rows out", "row out")
        );
    }
    let mut text = format!("{count} cells or lines can't be read; {cure}");
    for line in first {
        text += &format!("\n  {line}");
    }
    if count > first.len() {
        text += &format!("\n  and {} more", count - first.len());
    }
    text
}

/// Lines that can't be read.
#[derive(Default)]
struct BadLines {
    first: Vec<String>,
    count: usize,
    is_missing: bool,
}

impl BadLines {
    fn push(&mut self, sentence: String) {
        self.count += 1;
        if self.first.len() < QUOTED {
            self.first.push(sentence);
        }
    }

    fn check(self) -> Result<(), TableError> {
        let Self {
            first,
            count,
            is_missing,
        } = self;
        match count {
            0 => Ok(()),
            _ => Err(TableError::Bad {
                first,
                count,
                is_missing,
            }),
        }
    }
}

/// The text of a table in UTF-8, or in UTF-16 with a byte order mark, as spreadsheets write it; without the mark.
fn decoded(bytes: Vec<u8>) -> Result<String, TableError> {
    let unit: fn([u8; 2]) -> u16 = match bytes[..] {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => {
            let text = String::from_utf8(bytes).map_err(|_| TableError::NotText)?;
            // Zeros are UTF-8 as well, but in a table they are halves of UTF-16 without a mark.
            return match text.strip_prefix('\u{feff}') {
                _ if text.contains('\0') => Err(TableError::NotText),
                Some(unmarked) => Ok(unmarked.to_owned()),
                None => Ok(text),
            };
        }
    };
    let (pairs, rest) = bytes.as_chunks::<2>();
    let units: Vec<u16> = pairs.iter().skip(1).map(|&pair| unit(pair)).collect();
    match (String::from_utf16(&units), rest) {
        (Ok(text), []) => Ok(text),
        _ => Err(TableError::BrokenUtf16),
    }
}

impl Table {
    /// Reads a table, all of it before anything is refused.
    ///
    /// # Errors
    /// [`TableError`] names the columns or the lines.
    pub fn read(mut source: impl std::io::Read, reading: &Reading) -> Result<Table, TableError> {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes)?;
        let text = decoded(bytes)?;
        let delimiter = delimiter(&text);
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .delimiter(delimiter)
            .comment(Some(b'#'))
            .flexible(true)
            .from_reader(text.as_bytes());
        let header = Header::of(reader.headers()?)?;
        let places = header.places(reading)?;
        let mut rows = Rows {
            width: header.0.len(),
            has_commas: delimiter == b',',
            skips_missing: reading.skip_missing,
            places: &places,
            table: Table::default(),
            candidates: vec![Vec::new(); places.runs.len()],
            bad: BadLines::default(),
        };
        for record in reader.records() {
            rows.add(&record?);
        }
        let Rows {
            mut table,
            candidates,
            bad,
            ..
        } = rows;
        bad.check()?;
        if table.lines.is_empty() {
            return Err(TableError::Empty {
                filtered: table.filtered,
                skipped: table.skipped,
            });
        }
        table.name_columns(header, &places);
        table.find_runs(reading, &places, candidates);
        Ok(table)
    }

    /// A column, if there is one.
    pub fn column(&self, quantity: Quantity) -> Option<&[f64]> {
        self.values.get(&quantity).map(Vec::as_slice)
    }

    fn name_columns(&mut self, header: Header, places: &Places) {
        let name = |at: usize| header.0[at].clone();
        self.columns = places
            .columns
            .iter()
            .map(|&(q, at)| (q, name(at)))
            .collect();
        self.ambiguous = places.ambiguous.clone();
        let filters = places.filters.iter().map(|(at, _)| *at);
        let used: BTreeSet<usize> = places
            .columns
            .iter()
            .map(|(_, at)| *at)
            .chain(filters)
            .collect();
        let unused = (0..header.0.len()).filter(|at| !used.contains(at));
        self.unused = unused.map(name).collect();
        self.header = header.0;
    }

    /// Takes the column that was asked for, else the first that tells runs with several checkpoints apart.
    fn find_runs(&mut self, reading: &Reading, places: &Places, candidates: Vec<Vec<String>>) {
        let mut candidates = places.runs.iter().zip(candidates);
        let found = candidates.find_map(|(&at, names)| {
            let column = self.header[at].clone();
            let runs = Runs { column, names };
            let is_asked = reading.run != RunColumn::Detect;
            (is_asked || self.are_checkpoints(&runs)).then_some(runs)
        });
        if let Some(runs) = &found {
            self.unused.retain(|name| *name != runs.column);
        }
        self.runs = found;
    }

    /// Whether rows of one run have one size, and some of them different lengths.
    fn are_checkpoints(&self, runs: &Runs) -> bool {
        let length = self
            .column(Quantity::D)
            .or_else(|| self.column(Quantity::C));
        let (Some(n), Some(length)) = (self.column(Quantity::N), length) else {
            return false;
        };
        let groups = runs.groups();
        let differ = |values: &[f64], group: &[usize]| {
            let mut others = group.iter().map(|&row| values[row]);
            others.any(|value| (value / values[group[0]] - 1.0).abs() > 1e-3)
        };
        groups.len() > 1
            && groups.iter().all(|group| !differ(n, group))
            && groups.iter().any(|group| differ(length, group))
    }
}

/// Rows as they are read.
struct Rows<'p, 'r> {
    /// Columns of the header.
    width: usize,
    /// Whether commas stand between columns.
    has_commas: bool,
    skips_missing: bool,
    places: &'p Places<'r>,
    table: Table,
    /// What rows have in the columns that may name their run.
    candidates: Vec<Vec<String>>,
    bad: BadLines,
}

impl Rows<'_, '_> {
    fn add(&mut self, record: &csv::StringRecord) {
        let line = record.position().map_or(0, csv::Position::line);
        if record.len() != self.width {
            let hint = match self.has_commas && record.len() > self.width {
                true => "; if its numbers have decimal commas, write points",
                false => "",
            };
            self.bad.push(format!(
                "line {line} has {} fields, and the header has {}{hint}",
                record.len(),
                self.width
            ));
            return;
        }
        let mut filters = self.places.filters.iter();
        if !filters.all(|&(at, value)| alike(&record[at], value)) {
            self.table.filtered += 1;
            return;
        }
        let columns = self.places.columns.iter();
        let values: Vec<(Quantity, &str, Value)> = columns
            .map(|&(quantity, at)| (quantity, &record[at], value(&record[at], quantity)))
            .collect();
        let lacks = |(_, _, value): &(Quantity, &str, Value)| *value == Value::Missing;
        if self.skips_missing && values.iter().any(lacks) {
            self.table.skipped += 1;
            return;
        }
        for (quantity, text, value) in values {
            let why = match value {
                Value::Number(number) => {
                    self.table.values.entry(quantity).or_default().push(number);
                    continue;
                }
                Value::Missing => "is missing".to_owned(),
                Value::Bad(why) => why,
            };
            self.bad.is_missing |= why == "is missing";
            self.bad
                .push(format!("line {line}: {quantity} is `{text}`, which {why}"));
        }
        self.table.lines.push(line);
        for (names, &at) in self.candidates.iter_mut().zip(&self.places.runs) {
            names.push(record[at].to_owned());
        }
    }
}

/// What stands between the columns: of the usual characters the one that the header has most of, outside of quotes.
fn delimiter(text: &str) -> u8 {
    let mut lines = text.lines().map(str::trim);
    let header = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    let unquoted: String = header.unwrap_or_default().split('"').step_by(2).collect();
    let count = |delimiter: &u8| unquoted.bytes().filter(|b| b == delimiter).count();
    // Of equals the last is taken: a comma wherever there is one to take.
    let found = [b'|', b'\t', b';', b','].into_iter().max_by_key(count);
    found.unwrap_or(b',')
}

/// The same text, or the same number.
fn alike(a: &str, b: &str) -> bool {
    let number = |s: &str| s.parse::<f64>().ok();
    a == b || (number(a).is_some() && number(a) == number(b))
}
