//! Reading the fields of a JSON object, with errors that name the field, what was expected and what was found.

use serde_json::{Map, Value};

/// The fields of one object, and what to call it in an error.
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    place: String,
}

impl<'a> Fields<'a> {
    pub(super) fn new(value: &'a Value, place: String) -> Result<Self, String> {
        let object = value
            .as_object()
            .ok_or_else(|| format!("{place}: expected an object, found {}", kind(value)))?;
        Ok(Self { object, place })
    }

    pub(super) fn error(&self, field: &str, expected: &str, found: &str) -> String {
        format!(
            "{}: field \"{field}\": expected {expected}, found {found}",
            self.place
        )
    }

    /// The field, or none where it is absent or null.
    pub(super) fn optional(&self, field: &str) -> Option<&'a Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    fn required(&self, field: &str, expected: &str) -> Result<&'a Value, String> {
        self.object
            .get(field)
            .ok_or_else(|| self.error(field, expected, "no such field"))
    }

    pub(super) fn string(&self, field: &str) -> Result<String, String> {
        let value = self.required(field, "a string")?;
        value
            .as_str()
            .map(str::to_string)
            .ok_or_else(|| self.error(field, "a string", &kind(value)))
    }

    pub(super) fn array(&self, field: &str) -> Result<&'a [Value], String> {
        let value = self.required(field, "an array")?;
        value
            .as_array()
            .map(Vec::as_slice)
            .ok_or_else(|| self.error(field, "an array", &kind(value)))
    }

    pub(super) fn number_or(&self, field: &str, default: f64) -> Result<f64, String> {
        let Some(value) = self.optional(field) else {
            return Ok(default);
        };
        value
            .as_f64()
            .ok_or_else(|| self.error(field, "a number", &kind(value)))
    }

    pub(super) fn integer(&self, field: &str) -> Result<Option<i64>, String> {
        let Some(value) = self.optional(field) else {
            return Ok(None);
        };
        value
            .as_i64()
            .map(Some)
            .ok_or_else(|| self.error(field, "an integer or null", &kind(value)))
    }

    pub(super) fn shape(&self, field: &str) -> Result<Vec<usize>, String> {
        let size = |value: &Value| value.as_u64().and_then(|size| usize::try_from(size).ok());
        let sizes: Option<Vec<usize>> = self.array(field)?.iter().map(size).collect();
        let shape = sizes
            .ok_or_else(|| self.error(field, "an array of sizes", "something else among them"))?;
        let elements = shape
            .iter()
            .try_fold(1usize, |product, &size| product.checked_mul(size));
        match elements {
            Some(elements) if elements < 1 << 32 => Ok(shape),
            _ => Err(self.error(
                field,
                "a shape of fewer than 2^32 elements",
                &format!("{shape:?}"),
            )),
        }
    }

    /// A flat array of numbers: null is NaN, the strings "inf" and "-inf" are infinities, which JSON has no numbers for.
    pub(super) fn numbers(&self, field: &str) -> Result<Vec<f64>, String> {
        let expected = "an array of numbers, null for NaN, \"inf\" or \"-inf\"";
        (self.array(field)?.iter())
            .map(|value| number(value).ok_or_else(|| self.error(field, expected, &kind(value))))
            .collect()
    }

    /// As [`Self::numbers`], of exactly the elements of `shape`.
    pub(super) fn tensor(
        &self,
        field: &str,
        shape: &[usize],
        of: &str,
    ) -> Result<Vec<f64>, String> {
        let numbers = self.numbers(field)?;
        let count: usize = shape.iter().product();
        if numbers.len() == count {
            return Ok(numbers);
        }
        let expected = format!("{count} numbers, the product of {of} {shape:?}");
        Err(self.error(field, &expected, &numbers.len().to_string()))
    }
}

/// A number as golden files write it.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Null => Some(f64::NAN),
        Value::Number(number) => number.as_f64(),
        Value::String(text) if text == "inf" => Some(f64::INFINITY),
        Value::String(text) if text == "-inf" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_string(),
        Value::Bool(_) => "a boolean".to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string {text:?}"),
        Value::Array(_) => "an array".to_string(),
        Value::Object(_) => "an object".to_string(),
    }
}
