//! The measurements of a GPU as tables: times, and how much of a device copy's bandwidth was reached.

use crate::table::{duration, markdown};
use serde_json::{Value, json};

/// The function that the others are compared with.
const COPY: &str = "device copy";

/// Adds to each row that names bytes what it moved a second, and how that compares with a copy of as many bytes.
pub(crate) fn add_bandwidth(rows: &mut [Value]) {
    let same = |a: &Value, b: &Value| {
        ["group", "shape", "dtype"]
            .iter()
            .all(|key| a[key] == b[key])
    };
    let copies: Vec<Value> = rows
        .iter()
        .filter(|row| row["function"] == COPY)
        .cloned()
        .collect();
    for row in rows {
        let (Some(bytes), Some(seconds)) = (row["bytes"].as_f64(), row["median_seconds"].as_f64())
        else {
            continue;
        };
        row["gigabytes_per_second"] = json!(bytes / seconds / 1e9);
        let copy = copies.iter().find(|copy| same(copy, row));
        if let Some(copy_seconds) = copy.and_then(|copy| copy["median_seconds"].as_f64()) {
            row["fraction_of_copy"] = json!(copy_seconds / seconds);
        }
    }
}

/// One table a group: shapes and dtypes down, implementations across.
pub(crate) fn as_tables(file: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let mut out = format!("# {}\n", text(&file["device"]["name"]));
    if file["emulated"] == true {
        out.push_str("# emulated on the CPU: no evidence of a GPU, no number to quote\n");
    }
    for version in file["versions"].as_array().into_iter().flatten() {
        out.push_str(&format!("# {}\n", text(version)));
    }
    let rows: Vec<&Value> = file["measurements"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    for group in distinct(&rows, |row| text(&row["group"])) {
        let rows: Vec<&Value> = rows
            .iter()
            .copied()
            .filter(|r| r["group"] == *group)
            .collect();
        let functions = distinct(&rows, |row| text(&row["function"]));
        let place = |row: &Value| format!("{} {}", text(&row["shape"]), text(&row["dtype"]));
        let head = std::iter::once("shape".to_owned()).chain(functions.iter().cloned());
        let mut table = vec![head.collect::<Vec<_>>()];
        for shape in distinct(&rows, place) {
            let cell = |function: &String| {
                let row = rows
                    .iter()
                    .find(|row| place(row) == shape && row["function"] == **function);
                row.map_or_else(|| "-".to_owned(), |row| cell(row))
            };
            let cells = functions.iter().map(cell);
            table.push(std::iter::once(shape.clone()).chain(cells).collect());
        }
        out.push_str(&format!("\n{group}\n\n{}", markdown(&table)));
    }
    out
}

/// A time, and what share of the copy's bandwidth that is.
fn cell(row: &Value) -> String {
    let time = row["median_seconds"]
        .as_f64()
        .map_or_else(|| "?".to_owned(), duration);
    match (
        row["gigabytes_per_second"].as_f64(),
        row["fraction_of_copy"].as_f64(),
    ) {
        (Some(speed), Some(_)) if row["function"] == COPY => format!("{time} ({speed:.0} GB/s)"),
        (Some(_), Some(share)) => format!("{time} ({:.0}%)", 100.0 * share),
        _ => time,
    }
}

/// The distinct values among the rows, in order of first appearance.
fn distinct(rows: &[&Value], key: impl Fn(&Value) -> String) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for value in rows.iter().map(|row| key(row)) {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(function: &str, dtype: &str, seconds: f64) -> Value {
        json!({
            "group": "g", "function": function, "shape": "2x3", "dtype": dtype,
            "median_seconds": seconds, "bytes": 4_000_000_000u64,
        })
    }

    #[test]
    fn bandwidth_is_compared_with_the_copy_of_the_same_dtype() {
        let mut rows = [
            row(COPY, "f32", 1.0),
            row(COPY, "bf16", 9.0),
            row("ours", "f32", 2.0),
        ];
        add_bandwidth(&mut rows);
        assert_eq!(rows[2]["gigabytes_per_second"], 2.0);
        assert_eq!(rows[2]["fraction_of_copy"], 0.5);
        assert_eq!(rows[0]["fraction_of_copy"], 1.0);
    }

    #[test]
    fn tables_hold_every_row_and_say_when_the_device_was_emulated() {
        let mut rows = vec![row(COPY, "f32", 1.0), row("ours", "f32", 2.0)];
        add_bandwidth(&mut rows);
        let file = json!({
            "device": {"name": "a card"}, "emulated": true, "versions": ["V 1"], "measurements": rows,
        });
        let text = as_tables(&file);
        assert!(
            text.contains("no evidence of a GPU") && text.contains("# V 1"),
            "{text}"
        );
        assert!(
            text.contains("| 2x3 f32 | 1.00 s (4 GB/s) | 2.00 s (50%) |"),
            "{text}"
        );
    }
}
