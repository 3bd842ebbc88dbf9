//! Values of Parquet and Arrow, of every type.

use super::*;
use arrow_array::builder::{
    FixedSizeBinaryBuilder, ListViewBuilder, MapBuilder, StringBuilder, StringRunBuilder,
};
use arrow_array::types::{Float16Type, Int8Type, Int32Type};
use arrow_array::*;
use arrow_schema::{DataType, Field, Fields as Columns, Schema};
use std::sync::Arc;

fn as_parquet(table: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer =
        ::parquet::arrow::ArrowWriter::try_new(&mut bytes, table.schema(), None).unwrap();
    writer.write(table).unwrap();
    writer.close().unwrap();
    bytes
}

fn as_arrow(table: &RecordBatch) -> Vec<u8> {
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &table.schema()).unwrap();
    writer.write(table).unwrap();
    writer.into_inner().unwrap()
}

fn half(value: f32) -> <Float16Type as ArrowPrimitiveType>::Native {
    <Float16Type as ArrowPrimitiveType>::Native::from_f32(value)
}

/// A column of two rows, of which the second is null, and what the first one is.
type Column = (&'static str, ArrayRef, Value);

fn columns() -> Vec<Column> {
    [texts(), numbers(), times(), nested()].concat()
}

fn texts() -> Vec<Column> {
    let texts = || vec![Some("Größe"), None];
    vec![
        (
            "utf8",
            Arc::new(StringArray::from(texts())) as ArrayRef,
            json!("Größe"),
        ),
        (
            "large_utf8",
            Arc::new(LargeStringArray::from(texts())),
            json!("Größe"),
        ),
        (
            "utf8_view",
            Arc::new(StringViewArray::from(texts())),
            json!("Größe"),
        ),
        (
            "binary",
            Arc::new(BinaryArray::from(vec![Some("Größe".as_bytes()), None])),
            json!("Größe"),
        ),
        (
            "dictionary",
            Arc::new(texts().into_iter().collect::<DictionaryArray<Int8Type>>()),
            json!("Größe"),
        ),
        (
            "bool",
            Arc::new(BooleanArray::from(vec![Some(true), None])),
            json!(true),
        ),
        ("null", Arc::new(NullArray::new(2)), json!(null)),
    ]
}

fn numbers() -> Vec<Column> {
    vec![
        (
            "i8",
            Arc::new(Int8Array::from(vec![Some(-8), None])),
            json!(-8),
        ),
        (
            "i16",
            Arc::new(Int16Array::from(vec![Some(-16), None])),
            json!(-16),
        ),
        (
            "i32",
            Arc::new(Int32Array::from(vec![Some(-32), None])),
            json!(-32),
        ),
        (
            "i64",
            Arc::new(Int64Array::from(vec![Some(i64::MIN), None])),
            json!(i64::MIN),
        ),
        (
            "u8",
            Arc::new(UInt8Array::from(vec![Some(8), None])),
            json!(8),
        ),
        (
            "u16",
            Arc::new(UInt16Array::from(vec![Some(16), None])),
            json!(16),
        ),
        (
            "u32",
            Arc::new(UInt32Array::from(vec![Some(u32::MAX), None])),
            json!(u32::MAX),
        ),
        (
            "u64",
            Arc::new(UInt64Array::from(vec![Some(u64::MAX), None])),
            json!(u64::MAX),
        ),
        (
            "f16",
            Arc::new(Float16Array::from(vec![Some(half(0.7)), None])),
            json!(0.7),
        ),
        (
            "f32",
            Arc::new(Float32Array::from(vec![Some(0.7), None])),
            json!(0.7),
        ),
        (
            "f64",
            Arc::new(Float64Array::from(vec![Some(0.7), None])),
            json!(0.7),
        ),
        ("decimal", decimal(70, 4, 2), json!(0.7)),
        ("whole_decimal", decimal(300, 18, 2), json!(3)),
        (
            "long_decimal",
            decimal(12_345_678_901_234_567_890_123_450, 38, 2),
            json!("123456789012345678901234.5"),
        ),
    ]
}

fn times() -> Vec<Column> {
    let day = 19_844; // 2024-05-01
    let noon = day as i64 * 86_400 + 12 * 3600;
    vec![
        (
            "date",
            Arc::new(Date32Array::from(vec![Some(day), None])),
            json!("2024-05-01"),
        ),
        (
            "date64",
            Arc::new(Date64Array::from(vec![
                Some(i64::from(day) * 86_400_000),
                None,
            ])),
            json!("2024-05-01"),
        ),
        (
            "seconds",
            Arc::new(TimestampSecondArray::from(vec![Some(noon), None])),
            json!("2024-05-01T12:00:00"),
        ),
        (
            "millis",
            Arc::new(
                TimestampMillisecondArray::from(vec![Some(noon * 1000 + 5), None])
                    .with_timezone("Europe/Berlin"),
            ),
            json!("2024-05-01T12:00:00.005Z"),
        ),
        (
            "micros",
            Arc::new(TimestampMicrosecondArray::from(vec![
                Some(noon * 1_000_000),
                None,
            ])),
            json!("2024-05-01T12:00:00"),
        ),
        (
            "nanos",
            Arc::new(TimestampNanosecondArray::from(vec![
                Some(noon * 1_000_000_000),
                None,
            ])),
            json!("2024-05-01T12:00:00"),
        ),
        (
            "time",
            Arc::new(Time64MicrosecondArray::from(vec![
                Some(43_200_000_000),
                None,
            ])),
            json!("12:00:00"),
        ),
        (
            "time32",
            Arc::new(Time32SecondArray::from(vec![Some(43_200), None])),
            json!("12:00:00"),
        ),
        (
            "duration",
            Arc::new(DurationMillisecondArray::from(vec![Some(1500), None])),
            json!(1500),
        ),
        (
            "uuid",
            uuid(),
            json!("00010203-0405-0607-0809-0a0b0c0d0e0f"),
        ),
    ]
}

fn nested() -> Vec<Column> {
    vec![
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
                Some(vec![Some(1), None]),
                None,
            ])),
            json!([1, null]),
        ),
        (
            "large_list",
            Arc::new(LargeListArray::from_iter_primitive::<Int32Type, _, _>(
                vec![Some(vec![Some(1)]), None],
            )),
            json!([1]),
        ),
        (
            "fixed_list",
            Arc::new(FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
                vec![Some(vec![Some(1), Some(2)]), None],
                2,
            )),
            json!([1, 2]),
        ),
        ("struct", structs(), json!({"role": "user", "n": 1})),
        ("map", map(), json!({"a": "b"})),
    ]
}

fn decimal(value: i128, precision: u8, scale: i8) -> ArrayRef {
    let array = Decimal128Array::from(vec![Some(value), None]);
    Arc::new(array.with_precision_and_scale(precision, scale).unwrap())
}

fn uuid() -> ArrayRef {
    let mut builder = FixedSizeBinaryBuilder::new(16);
    builder
        .append_value(std::array::from_fn::<u8, 16, _>(|at| at as u8))
        .unwrap();
    builder.append_null();
    Arc::new(builder.finish())
}

fn structs() -> ArrayRef {
    let fields = Columns::from(vec![
        Field::new("role", DataType::Utf8, true),
        Field::new("n", DataType::Int32, true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![Some("user"), None])),
        Arc::new(Int32Array::from(vec![Some(1), None])),
    ];
    let valid = vec![true, false];
    Arc::new(StructArray::new(fields, columns, Some(valid.into())))
}

fn map() -> ArrayRef {
    let mut builder = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    builder.keys().append_value("a");
    builder.values().append_value("b");
    builder.append(true).unwrap();
    builder.append(false).unwrap();
    Arc::new(builder.finish())
}

fn table(columns: &[(&'static str, ArrayRef, Value)]) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array, _)| Field::new(*name, array.data_type().clone(), true))
        .collect();
    let arrays = columns
        .iter()
        .map(|(_, array, _)| Arc::clone(array))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn holds(bytes: &[u8], columns: &[(&'static str, ArrayRef, Value)]) {
    let place = Place::new();
    let read = place.read(bytes);
    assert_eq!((read.error, read.malformed), (None, vec![]));
    assert_eq!(read.values.len(), 2);
    for (name, _, expected) in columns {
        assert_eq!(read.values[0][*name], *expected, "{name}");
        assert_eq!(read.values[1][*name], Value::Null, "{name}");
    }
    let names: Vec<&str> = columns.iter().map(|(name, ..)| *name).collect();
    assert_eq!(read.columns, names);
    assert_eq!(read.repairs, 0);
}

#[test]
fn values_of_every_type_come_through() {
    let columns = columns();
    holds(&as_parquet(&table(&columns)), &columns);
    holds(&as_arrow(&table(&columns)), &columns);
}

#[test]
fn values_of_types_that_only_arrow_has_come_through() {
    let mut runs = StringRunBuilder::<Int32Type>::new();
    runs.append_value("run");
    runs.append_null();
    let mut views = ListViewBuilder::new(StringBuilder::new());
    views.append_value([Some("a")]);
    views.append_null();
    let columns: Vec<(&'static str, ArrayRef, Value)> = vec![
        ("runs", Arc::new(runs.finish()), json!("run")),
        ("views", Arc::new(views.finish()), json!(["a"])),
    ];
    holds(&as_arrow(&table(&columns)), &columns);
}

#[test]
fn parquet_of_programs_that_know_no_arrow_is_read() {
    use ::parquet::data_type::{ByteArray, ByteArrayType, Int96, Int96Type};
    use ::parquet::file::writer::SerializedFileWriter;
    let schema =
        "message m { required binary text; required int96 at; required binary named (UTF8); }";
    let schema = Arc::new(::parquet::schema::parser::parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let text = [ByteArray::from("Größe")];
    let mut at = Int96::new();
    // Nanoseconds of the day, and the Julian day of 2024-05-01.
    at.set_data(0, 0, 2_460_432);
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<ByteArrayType>()
        .write_batch(&text, None, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<Int96Type>()
        .write_batch(&[at], None, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<ByteArrayType>()
        .write_batch(&text, None, None)
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    let read = Place::new().read(&bytes);
    let expected = json!([{"text": "Größe", "at": "2024-05-01T00:00:00", "named": "Größe"}]);
    assert_eq!((read.error, json!(read.values)), (None, expected));
}

#[test]
fn text_that_is_none_costs_its_row_and_is_named() {
    use ::parquet::data_type::{ByteArray, ByteArrayType};
    let schema = "message m { required binary prompt (UTF8); required binary other (UTF8); }";
    let schema = Arc::new(::parquet::schema::parser::parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    let mut writer =
        ::parquet::file::writer::SerializedFileWriter::new(&mut bytes, schema, Default::default())
            .unwrap();
    let mut group = writer.next_row_group().unwrap();
    for _ in 0..2 {
        let texts = [&b"good"[..], b"Gr\xf6\xdfe", b"good"];
        let texts = texts.map(|text| ByteArray::from(text.to_vec()));
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<ByteArrayType>()
            .write_batch(&texts, None, None)
            .unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    let place = Place::new();
    let path = place.write("in.parquet", &bytes);
    let read = place.read_named(path.to_str().unwrap(), &wanted(&["prompt"]));
    assert_eq!(
        read.malformed,
        ["row 2 holds bytes in the column 'prompt' that are not UTF-8 text"]
    );
    assert_eq!(
        (read.places, read.error),
        (vec!["row 1".to_owned(), "row 3".into()], None)
    );
    // What nobody wants may be anything.
    let read = place.read_named(path.to_str().unwrap(), &wanted(&["absent"]));
    assert_eq!((read.values.len(), read.malformed.len()), (3, 0));
    assert_eq!(read.columns, ["prompt", "other"]);
}

#[test]
fn numbers_that_are_none_are_null_and_counted() {
    let floats = Float64Array::from(vec![f64::NAN, f64::INFINITY, 0.5]);
    let halves = Float16Array::from(vec![half(f32::NEG_INFINITY), half(65504.0), half(6e-8)]);
    let table = RecordBatch::try_from_iter([
        ("a", Arc::new(floats) as ArrayRef),
        ("b", Arc::new(halves) as ArrayRef),
    ])
    .unwrap();
    let read = Place::new().read(&as_parquet(&table));
    let expected =
        json!([{"a": null, "b": null}, {"a": null, "b": 65500.0}, {"a": 0.5, "b": 6e-8}]);
    assert_eq!(json!(read.values), expected);
    assert_eq!(read.repairs, 3);
}
