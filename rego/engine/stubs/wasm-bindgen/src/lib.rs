//! Stand-in for wasm-bindgen: chrono converts milliseconds through `JsValue` and uses nothing else of it.

/// A JavaScript number.
pub struct JsValue(f64);

impl JsValue {
    pub fn from_f64(value: f64) -> Self {
        Self(value)
    }

    pub fn as_f64(&self) -> Option<f64> {
        Some(self.0)
    }
}

impl From<f64> for JsValue {
    fn from(value: f64) -> Self {
        Self(value)
    }
}
