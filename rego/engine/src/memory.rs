//! Memory that the host fills or reads.

use std::alloc::{alloc, dealloc, Layout};

const ALIGNMENT: usize = 8;

fn layout(length: usize) -> Option<Layout> {
    Layout::from_size_align(length.max(1), ALIGNMENT).ok()
}

/// Memory of `length` bytes for the host to write into; null where there is none left.
#[no_mangle]
pub extern "C" fn memory_allocate(length: usize) -> *mut u8 {
    match layout(length) {
        // SAFETY: the layout has a size of at least one byte.
        Some(layout) => unsafe { alloc(layout) },
        None => core::ptr::null_mut(),
    }
}

/// Gives memory back.
///
/// # Safety
/// `pointer` comes from `memory_allocate` with this very `length`, and is given back once.
#[no_mangle]
pub unsafe extern "C" fn memory_free(pointer: *mut u8, length: usize) {
    if let Some(layout) = layout(length) {
        dealloc(pointer, layout);
    }
}

/// The UTF-8 text of `length` bytes at `pointer`.
///
/// # Safety
/// `pointer` is readable for `length` bytes.
pub unsafe fn text_at(pointer: *const u8, length: usize) -> Result<String, String> {
    String::from_utf8(core::slice::from_raw_parts(pointer, length).to_vec()).map_err(|error| error.to_string())
}
