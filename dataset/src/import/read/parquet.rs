//! Parquet. Texts are read as bytes and checked one by one, so that one that is damaged costs its row only
//! and can be named.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Schema};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::{
    ARROW_SCHEMA_META_KEY, ProjectionMask, encode_arrow_schema, parquet_to_arrow_schema,
};
use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataReader,
};
use parquet::schema::types::{SchemaDescriptor, Type, TypePtr};

use super::layers::{Damage, Outside};
use super::open::{Fault, Reading};
use super::{BATCH_BYTES, Sink, value};

/// Rows of a batch, whatever their size.
const ROWS: usize = 4096;

/// Hands over the rows of a file, in order, with the columns that are wanted.
pub(super) fn read(mut file: File, reading: &Reading<'_>, sink: Sink<'_>) -> Result<(), Fault> {
    whole(&mut file)?;
    let Opened {
        mut reader,
        columns,
        rows,
    } = guarded(|| open(file, reading))?;
    let mut before = 0;
    loop {
        let place = || format!("after row {before}");
        let next = guarded(|| reader.next().transpose().map_err(ParquetError::from));
        let batch = match next.map_err(|fault| placed(fault, &place()))? {
            Some(batch) => batch,
            None => return Ok(()),
        };
        let records = value::records(&batch, &columns, before);
        before += batch.num_rows() as u64;
        if let Some(bytes) = reading.direct() {
            // How much of the file that took, is not known.
            let share = before as f64 / rows.max(1) as f64;
            reading
                .consumed()
                .set((bytes as f64 * share.min(1.0)) as u64);
        }
        if !records.is_empty() && !sink(records) {
            return Ok(());
        }
    }
}

/// Whether the file ends as one that is whole.
fn whole(file: &mut File) -> Result<(), Fault> {
    let mut end = [0; 4];
    let length = file.seek(SeekFrom::End(0)).map_err(Fault::Read)?;
    if length >= 12 {
        file.seek(SeekFrom::End(-4)).map_err(Fault::Read)?;
        file.read_exact(&mut end).map_err(Fault::Read)?;
    }
    match &end {
        b"PAR1" => Ok(()),
        b"PARE" => Err(Fault::Unsupported(
            "its footer is encrypted; write it without encryption".into(),
        )),
        _ => Err(Fault::Cut {
            what: "its Parquet data",
            place: "without the footer that says what is in them".into(),
        }),
    }
}

/// Does what a library does with bytes that may be damaged: it may panic on them.
pub(super) fn guarded<T, E: Into<Trouble>>(
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| error.into().fault()),
        Err(_) => Err(Fault::Damaged(
            "what it says of itself makes no sense".into(),
        )),
    }
}

/// What the libraries of tables say.
pub(super) enum Trouble {
    Parquet(ParquetError),
    Arrow(arrow_schema::ArrowError),
}

impl From<ParquetError> for Trouble {
    fn from(error: ParquetError) -> Self {
        Self::Parquet(error)
    }
}

impl From<arrow_schema::ArrowError> for Trouble {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self::Arrow(error)
    }
}

impl Trouble {
    fn fault(self) -> Fault {
        if let Self::Arrow(arrow_schema::ArrowError::IoError(_, error)) = self {
            // Of a stream: the layer's around it, or its own.
            let inner = error.get_ref();
            let outer = inner.is_some_and(|inner| inner.is::<Damage>() || inner.is::<Outside>());
            return match error.kind() {
                ErrorKind::InvalidData if !outer => Fault::Damaged(error.to_string()),
                _ => Fault::at(error, "among its rows"),
            };
        }
        let text = match &self {
            Self::Parquet(error) => error.to_string(),
            Self::Arrow(error) => error.to_string(),
        };
        match text.contains("not supported")
            || text.contains("NYI")
            || text.contains("Disabled feature")
        {
            true => Fault::Unsupported(format!("it uses something that is not supported ({text})")),
            false => Fault::Damaged(text),
        }
    }
}

pub(super) fn placed(fault: Fault, place: &str) -> Fault {
    match fault {
        Fault::Damaged(what) => Fault::Damaged(format!("{place}: {what}")),
        other => other,
    }
}

/// A file whose columns are known.
struct Opened {
    /// Of the wanted columns.
    reader: ParquetRecordBatchReader,
    /// Names of all columns.
    columns: Arc<[String]>,
    rows: u64,
}

fn open(file: File, reading: &Reading<'_>) -> Result<Opened, ParquetError> {
    let mut metadata = ParquetMetaDataReader::new();
    metadata.try_parse(&file)?;
    let metadata = plain(metadata.finish()?)?;
    let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())
        .or_else(|_| {
            let metadata = ParquetMetaDataReader::new().parse_and_finish(&file)?;
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            ArrowReaderMetadata::try_new(Arc::new(unnamed(metadata)?), options)
        })?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
    let all = value::names(builder.schema());
    let roots = reading.wanted.roots(&all);
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots.iter().copied());
    let groups = builder.metadata().row_groups();
    let rows: u64 = groups
        .iter()
        .map(|group| group.num_rows().max(0) as u64)
        .sum();
    let schema = builder.parquet_schema();
    let wanted = |column: &usize| roots.contains(&schema.get_column_root_idx(*column));
    let of_group = |columns: usize, bytes: &dyn Fn(usize) -> i64| {
        (0..columns)
            .filter(wanted)
            .map(|column| bytes(column).max(0) as u64)
            .sum::<u64>()
    };
    let bytes: u64 = groups
        .iter()
        .map(|group| {
            let columns = group.num_columns().min(schema.num_columns());
            of_group(columns, &|at| group.column(at).uncompressed_size())
        })
        .sum();
    let batch = BATCH_BYTES as u64 / (bytes / rows.max(1)).max(1);
    let reader = builder
        .with_projection(mask)
        .with_batch_size((batch as usize).clamp(1, ROWS))
        .build()?;
    Ok(Opened {
        reader,
        columns: all.into(),
        rows,
    })
}

/// The same metadata with texts as bytes, and without dictionaries.
fn plain(metadata: ParquetMetaData) -> Result<ParquetMetaData, ParquetError> {
    let known = metadata.file_metadata();
    let schema = parquet_to_arrow_schema(known.schema_descr(), known.key_value_metadata());
    let hint = schema.ok().map(|schema| {
        let fields: Vec<FieldRef> = schema.fields().iter().map(bytes_field).collect();
        let hint = encode_arrow_schema(&Schema::new(fields));
        vec![KeyValue::new(ARROW_SCHEMA_META_KEY.into(), hint)]
    });
    with_schema(metadata, hint)
}

/// The same, without what an Arrow library wrote beside it.
fn unnamed(metadata: ParquetMetaData) -> Result<ParquetMetaData, ParquetError> {
    with_schema(metadata, None)
}

fn with_schema(
    metadata: ParquetMetaData,
    hint: Option<Vec<KeyValue>>,
) -> Result<ParquetMetaData, ParquetError> {
    let known = metadata.file_metadata();
    let schema = bytes_type(known.schema_descr().root_schema())?;
    let file = FileMetaData::new(
        known.version(),
        known.num_rows(),
        known.created_by().map(str::to_owned),
        hint,
        Arc::new(SchemaDescriptor::new(schema)),
        known.column_orders().cloned(),
    );
    let groups = metadata.row_groups().to_vec();
    Ok(ParquetMetaDataBuilder::new(file)
        .set_row_groups(groups)
        .build())
}

/// A Parquet type whose texts are bytes.
fn bytes_type(of: &Type) -> Result<TypePtr, ParquetError> {
    let info = of.get_basic_info();
    let id = info.has_id().then(|| info.id());
    let made = match of {
        Type::PrimitiveType { physical_type, .. } => {
            let text = matches!(
                info.logical_type_ref(),
                Some(LogicalType::String | LogicalType::Json | LogicalType::Enum)
            ) || matches!(
                info.converted_type(),
                ConvertedType::UTF8 | ConvertedType::JSON | ConvertedType::ENUM
            );
            if !text || *physical_type != Physical::BYTE_ARRAY {
                return Ok(Arc::new(of.clone()));
            }
            Type::primitive_type_builder(info.name(), Physical::BYTE_ARRAY)
                .with_repetition(info.repetition())
                .with_id(id)
                .build()?
        }
        Type::GroupType { fields, .. } => {
            let fields: Result<Vec<TypePtr>, ParquetError> =
                fields.iter().map(|field| bytes_type(field)).collect();
            let mut group = Type::group_type_builder(info.name())
                .with_converted_type(info.converted_type())
                .with_logical_type(info.logical_type_ref().cloned())
                .with_fields(fields?)
                .with_id(id);
            if info.has_repetition() {
                group = group.with_repetition(info.repetition());
            }
            group.build()?
        }
    };
    Ok(Arc::new(made))
}

/// An Arrow field whose texts are bytes, without dictionaries.
fn bytes_field(field: &FieldRef) -> FieldRef {
    let of = bytes_data(field.data_type());
    Arc::new(Field::new(field.name(), of, field.is_nullable()))
}

fn bytes_data(of: &DataType) -> DataType {
    match of {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Binary,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => bytes_data(values),
        DataType::RunEndEncoded(_, values) => bytes_data(values.data_type()),
        DataType::List(item) => DataType::List(bytes_field(item)),
        DataType::LargeList(item) => DataType::LargeList(bytes_field(item)),
        DataType::ListView(item) => DataType::List(bytes_field(item)),
        DataType::LargeListView(item) => DataType::LargeList(bytes_field(item)),
        DataType::FixedSizeList(item, length) => {
            DataType::FixedSizeList(bytes_field(item), *length)
        }
        DataType::Map(entries, sorted) => DataType::Map(bytes_field(entries), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(bytes_field).collect()),
        other => other.clone(),
    }
}
