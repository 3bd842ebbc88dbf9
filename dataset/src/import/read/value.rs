//! Arrow's values as JSON's, of every type that a table may have.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, RecordBatch};
use arrow_schema::{DataType, Schema, TimeUnit};
use serde_json::{Map, Number, Value};

use super::Wanted;
use super::record::{Fields, Malformed, Place, Raw, RawRecord, Unit};

/// Rows that were read together.
#[derive(Debug)]
pub(super) struct Table {
    /// Names of the columns that are here.
    names: Vec<String>,
    columns: Vec<ArrayRef>,
    /// Names of all columns of the input.
    all: Arc<[String]>,
}

/// A row of a table.
#[derive(Debug, Clone)]
pub(super) struct Row {
    table: Arc<Table>,
    at: usize,
}

/// Names of columns, in their order.
pub(super) fn names(schema: &Schema) -> Vec<String> {
    schema
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect()
}

/// The rows of a batch, of which `before` came earlier.
pub(super) fn records(batch: &RecordBatch, all: &Arc<[String]>, before: u64) -> Vec<RawRecord> {
    let rows = batch.num_rows();
    let table = Arc::new(Table {
        names: names(&batch.schema()),
        columns: batch.columns().to_vec(),
        all: Arc::clone(all),
    });
    let record = |at: usize| RawRecord {
        place: Place {
            unit: Unit::Row,
            number: before + at as u64 + 1,
            member: None,
        },
        raw: Raw::Row(Row {
            table: Arc::clone(&table),
            at,
        }),
    };
    (0..rows).map(record).collect()
}

impl Row {
    pub(super) fn fields(&self, wanted: &Wanted) -> Result<Fields, Malformed> {
        let mut reading = Reading {
            lossy: false,
            repairs: 0,
        };
        let mut values = Map::new();
        for (name, column) in self.table.names.iter().zip(&self.table.columns) {
            if wanted.has(name) {
                let value = reading.value(column, self.at);
                let value = value.map_err(|trouble| trouble.of(name))?;
                values.insert(name.clone(), value);
            }
        }
        Ok(Fields {
            values,
            columns: Arc::clone(&self.table.all),
            repairs: reading.repairs,
        })
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut reading = Reading {
            lossy: true,
            repairs: 0,
        };
        let columns = self.table.names.iter().zip(&self.table.columns);
        let pairs = columns.map(|(name, column)| {
            let value = reading.value(column, self.at);
            (name.clone(), value.unwrap_or(Value::Null))
        });
        Value::Object(pairs.collect()).to_string().into_bytes()
    }
}

/// Why a value has no counterpart in JSON.
enum Trouble {
    /// Bytes that are no text.
    NoText,
    /// A date or time that no calendar has.
    NoDate,
    Type(DataType),
}

impl Trouble {
    fn of(self, column: &str) -> Malformed {
        Malformed(match self {
            Self::NoText => {
                format!("holds bytes in the column '{column}' that are not UTF-8 text")
            }
            Self::NoDate => {
                format!("holds a date or time in the column '{column}' that no calendar has")
            }
            Self::Type(of) => format!(
                "can't be read: the column '{column}' is of Arrow's type {of}, which is no JSON \
                 value"
            ),
        })
    }
}

struct Reading {
    /// Whether what is no text comes as near to it as can be.
    lossy: bool,
    /// NaN and infinities.
    repairs: u32,
}

impl Reading {
    fn value(&mut self, array: &dyn Array, at: usize) -> Result<Value, Trouble> {
        if array.is_null(at) {
            return Ok(Value::Null);
        }
        macro_rules! number {
            ($type:ty) => {
                Ok(Value::from(array.as_primitive::<$type>().value(at)))
            };
        }
        match array.data_type() {
            DataType::Null => Ok(Value::Null),
            DataType::Utf8 => Ok(array.as_string::<i32>().value(at).into()),
            DataType::LargeUtf8 => Ok(array.as_string::<i64>().value(at).into()),
            DataType::Utf8View => Ok(array.as_string_view().value(at).into()),
            DataType::Binary => self.text(array.as_binary::<i32>().value(at)),
            DataType::LargeBinary => self.text(array.as_binary::<i64>().value(at)),
            DataType::BinaryView => self.text(array.as_binary_view().value(at)),
            // So many bytes are an identifier, whatever they look like.
            DataType::FixedSizeBinary(16) => Ok(uuid(array.as_fixed_size_binary().value(at))),
            DataType::FixedSizeBinary(_) => self.text(array.as_fixed_size_binary().value(at)),
            DataType::Boolean => Ok(array.as_boolean().value(at).into()),
            DataType::Int8 => number!(Int8Type),
            DataType::Int16 => number!(Int16Type),
            DataType::Int32 => number!(Int32Type),
            DataType::Int64 => number!(Int64Type),
            DataType::UInt8 => number!(UInt8Type),
            DataType::UInt16 => number!(UInt16Type),
            DataType::UInt32 => number!(UInt32Type),
            DataType::UInt64 => number!(UInt64Type),
            DataType::Duration(_) => self.value(&duration(array), at),
            DataType::Float64 => Ok(self.float(array.as_primitive::<Float64Type>().value(at))),
            // The digits that the shorter type means: 0.7, not 0.699999988.
            DataType::Float32 => {
                let float = array.as_primitive::<Float32Type>().value(at);
                Ok(self.float(float.to_string().parse().unwrap_or(f64::NAN)))
            }
            DataType::Float16 => {
                let float = array.as_primitive::<Float16Type>().value(at);
                let near = |text: &String| half(text) == Some(float.to_bits());
                let shortest = (0..5).map(|digits| format!("{:.*e}", digits, float.to_f32()));
                let shortest = shortest.into_iter().find(near);
                let shortest = shortest.and_then(|text| text.parse().ok());
                Ok(self.float(shortest.unwrap_or_else(|| float.to_f64())))
            }
            DataType::Decimal32(..) => Ok(decimal::<Decimal32Type>(array, at)),
            DataType::Decimal64(..) => Ok(decimal::<Decimal64Type>(array, at)),
            DataType::Decimal128(..) => Ok(decimal::<Decimal128Type>(array, at)),
            DataType::Decimal256(..) => Ok(decimal::<Decimal256Type>(array, at)),
            DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) => {
                moment(array, at).map(Value::from).ok_or(Trouble::NoDate)
            }
            DataType::Timestamp(_, zone) => {
                let mut text = timestamp(array, at).ok_or(Trouble::NoDate)?;
                // Values of a zone are kept in universal time.
                text.push_str(if zone.is_some() { "Z" } else { "" });
                Ok(text.into())
            }
            _ => self.nested(array, at),
        }
    }

    fn nested(&mut self, array: &dyn Array, at: usize) -> Result<Value, Trouble> {
        match array.data_type() {
            DataType::List(_) => self.list(&array.as_list::<i32>().value(at)),
            DataType::LargeList(_) => self.list(&array.as_list::<i64>().value(at)),
            DataType::ListView(_) => self.list(&array.as_list_view::<i32>().value(at)),
            DataType::LargeListView(_) => self.list(&array.as_list_view::<i64>().value(at)),
            DataType::FixedSizeList(..) => self.list(&array.as_fixed_size_list().value(at)),
            DataType::Struct(fields) => {
                let mut object = Map::new();
                for (field, column) in fields.iter().zip(array.as_struct().columns()) {
                    object.insert(field.name().clone(), self.value(column, at)?);
                }
                Ok(Value::Object(object))
            }
            DataType::Map(..) => {
                let entries = array.as_map().value(at);
                let mut object = Map::new();
                for entry in 0..entries.len() {
                    let key = match self.value(entries.column(0), entry)? {
                        Value::String(key) => key,
                        other => other.to_string(),
                    };
                    object.insert(key, self.value(entries.column(1), entry)?);
                }
                Ok(Value::Object(object))
            }
            DataType::Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                let key = self.value(dictionary.keys(), at)?;
                let key = key.as_u64().and_then(|key| usize::try_from(key).ok());
                let key = key.filter(|key| *key < dictionary.values().len());
                key.map_or(Ok(Value::Null), |key| self.value(dictionary.values(), key))
            }
            DataType::RunEndEncoded(ends, _) => {
                let physical = match ends.data_type() {
                    DataType::Int16 => array.as_run::<Int16Type>().get_physical_index(at),
                    DataType::Int32 => array.as_run::<Int32Type>().get_physical_index(at),
                    _ => array.as_run::<Int64Type>().get_physical_index(at),
                };
                self.value(array.as_any_ree().values(), physical)
            }
            DataType::Union(..) => self.value(&array.as_union().value(at), 0),
            other => Err(Trouble::Type(other.clone())),
        }
    }

    fn list(&mut self, items: &ArrayRef) -> Result<Value, Trouble> {
        let items = (0..items.len()).map(|item| self.value(items, item));
        Ok(Value::Array(items.collect::<Result<_, _>>()?))
    }

    fn text(&self, bytes: &[u8]) -> Result<Value, Trouble> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(_) if self.lossy => Ok(String::from_utf8_lossy(bytes).into()),
            Err(_) => Err(Trouble::NoText),
        }
    }

    fn float(&mut self, float: f64) -> Value {
        self.repairs += u32::from(!float.is_finite());
        Value::from(float)
    }
}

/// The bits of the half-precision number that a text is nearest to.
fn half(text: &str) -> Option<u16> {
    let float: f32 = text.parse().ok()?;
    Some(<Float16Type as ArrowPrimitiveType>::Native::from_f32(float).to_bits())
}

fn uuid(bytes: &[u8]) -> Value {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text.into()
}

/// Durations are the numbers that they are kept as.
fn duration(array: &dyn Array) -> ArrayRef {
    macro_rules! plain {
        ($type:ty) => {
            Arc::new(
                array
                    .as_primitive::<$type>()
                    .reinterpret_cast::<Int64Type>(),
            )
        };
    }
    match array.data_type() {
        DataType::Duration(TimeUnit::Second) => plain!(DurationSecondType),
        DataType::Duration(TimeUnit::Millisecond) => plain!(DurationMillisecondType),
        DataType::Duration(TimeUnit::Microsecond) => plain!(DurationMicrosecondType),
        _ => plain!(DurationNanosecondType),
    }
}

/// A decimal number without zeros that say nothing; as text where no number of 64 bits is written so.
fn decimal<T: DecimalType + ArrowPrimitiveType>(array: &dyn Array, at: usize) -> Value {
    let text = array.as_primitive::<T>().value_as_string(at);
    let short = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    let number = serde_json::from_str::<Number>(short).ok();
    match number.filter(|number| number.to_string() == short) {
        Some(number) => Value::Number(number),
        None => short.into(),
    }
}

/// A date or a time of day in ISO 8601.
fn moment(array: &dyn Array, at: usize) -> Option<String> {
    macro_rules! text {
        ($type:ty, $as:ident) => {
            Some(array.as_primitive::<$type>().$as(at)?.to_string())
        };
    }
    match array.data_type() {
        DataType::Date32 => text!(Date32Type, value_as_date),
        DataType::Date64 => text!(Date64Type, value_as_date),
        DataType::Time32(TimeUnit::Second) => text!(Time32SecondType, value_as_time),
        DataType::Time32(_) => text!(Time32MillisecondType, value_as_time),
        DataType::Time64(TimeUnit::Microsecond) => text!(Time64MicrosecondType, value_as_time),
        _ => text!(Time64NanosecondType, value_as_time),
    }
}

fn timestamp(array: &dyn Array, at: usize) -> Option<String> {
    macro_rules! text {
        ($type:ty) => {
            // Their debugging form is ISO 8601's, with a T.
            Some(format!(
                "{:?}",
                array.as_primitive::<$type>().value_as_datetime(at)?
            ))
        };
    }
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => text!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => text!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => text!(TimestampMicrosecondType),
        _ => text!(TimestampNanosecondType),
    }
}
