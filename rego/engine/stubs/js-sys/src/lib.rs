//! Stand-in for js-sys: `Date` as chrono uses it. The local time zone is UTC, as in a measured guest.

use wasm_bindgen::JsValue;

#[link(wasm_import_module = "host")]
extern "C" {
    /// Milliseconds since the Unix epoch.
    fn wall_clock_ms() -> f64;
}

pub struct Date(f64);

impl Date {
    pub fn new_0() -> Self {
        // SAFETY: the import takes nothing and returns a number.
        Self(unsafe { wall_clock_ms() })
    }

    pub fn new(milliseconds: &JsValue) -> Self {
        Self(milliseconds.as_f64().unwrap_or(f64::NAN))
    }

    pub fn get_time(&self) -> f64 {
        self.0
    }

    pub fn get_timezone_offset(&self) -> f64 {
        0.0
    }

    /// chrono asks this for local → UTC only; with UTC as local zone it never decides anything.
    pub fn new_with_year_month_day_hr_min_sec(
        _year: u32,
        _month: i32,
        _day: i32,
        _hour: i32,
        _minute: i32,
        _second: i32,
    ) -> Self {
        Self(f64::NAN)
    }
}
