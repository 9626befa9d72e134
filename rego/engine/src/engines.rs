//! The table of engines and the text of the last answer.

use regorus::Engine;
use std::cell::RefCell;

/// A value as JSON, nothing (undefined, or nothing to say), or the text of an error.
pub type Outcome = Result<Option<String>, String>;

const STATUS_VALUE: i32 = 0;
const STATUS_NOTHING: i32 = 1;
const STATUS_ERROR: i32 = 2;

thread_local! {
    static ENGINES: RefCell<Vec<Option<Engine>>> = const { RefCell::new(Vec::new()) };
    static RESULT: RefCell<String> = const { RefCell::new(String::new()) };
}

fn index(handle: u32) -> Option<usize> {
    usize::try_from(handle).ok()?.checked_sub(1)
}

/// Keeps an engine and answers its handle, which is never 0.
pub fn insert(engine: Engine) -> u32 {
    ENGINES.with_borrow_mut(|engines| {
        let free = engines.iter().position(Option::is_none).unwrap_or_else(|| {
            engines.push(None);
            engines.len() - 1
        });
        engines[free] = Some(engine);
        u32::try_from(free + 1).unwrap_or(0)
    })
}

pub fn duplicate(handle: u32) -> u32 {
    let copy = ENGINES.with_borrow(|engines| engines.get(index(handle)?)?.clone());
    copy.map_or(0, insert)
}

pub fn remove(handle: u32) {
    ENGINES.with_borrow_mut(|engines| {
        if let Some(place) = index(handle).and_then(|place| engines.get_mut(place)) {
            *place = None;
        }
    });
}

fn take(handle: u32) -> Option<Engine> {
    ENGINES.with_borrow_mut(|engines| engines.get_mut(index(handle)?)?.take())
}

/// Runs `work` on an engine and keeps its answer for the host. The engine is out of the table meanwhile, so that a
/// function of the host that calls back finds no half-borrowed table.
pub fn with_engine(handle: u32, work: impl FnOnce(&mut Engine) -> Outcome) -> i32 {
    let Some(mut engine) = take(handle) else {
        return answer(Err(format!("there is no engine {handle}")));
    };
    let outcome = work(&mut engine);
    ENGINES.with_borrow_mut(|engines| {
        if let Some(place) = index(handle).and_then(|place| engines.get_mut(place)) {
            *place = Some(engine);
        }
    });
    answer(outcome)
}

fn answer(outcome: Outcome) -> i32 {
    let (status, text) = match outcome {
        Ok(Some(text)) => (STATUS_VALUE, text),
        Ok(None) => (STATUS_NOTHING, String::new()),
        Err(text) => (STATUS_ERROR, text),
    };
    RESULT.set(text);
    status
}

#[no_mangle]
pub extern "C" fn result_pointer() -> *const u8 {
    RESULT.with_borrow(|result| result.as_ptr())
}

#[no_mangle]
pub extern "C" fn result_length() -> usize {
    RESULT.with_borrow(String::len)
}
