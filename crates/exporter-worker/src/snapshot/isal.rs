//! The one place that speaks C: Intel's ISA-L, the fastest deflate there is (BSD licence), through the raw bindings of
//! `isal-sys`. Their safe counterpart can only end a stream, never flush it, and blocks that are to be joined need that.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};

use isal_sys::igzip_lib::{
    COMP_OK, FULL_FLUSH, INVALID_PARAM, ISAL_DEF_LVL2_DEFAULT, isal_deflate, isal_deflate_init, isal_zstream,
};

/// Of levels 1 to 3 the last one that costs hardly more time than the first.
const LEVEL: u32 = 2;

/// A compressor: some 400 KiB of state, to be used again and again.
pub(super) struct Isal {
    stream: Box<isal_zstream>,
    work: Vec<u8>,
}

// SAFETY: the stream's pointers are set anew for every call and point into buffers that this value owns or borrows for
// the length of the call; nothing in it belongs to a thread.
unsafe impl Send for Isal {}

impl Isal {
    pub(super) fn new() -> Self {
        let layout = Layout::new::<isal_zstream>();
        // SAFETY: the layout is not empty. The structure is plain data of C (integers, pointers, arrays), for which
        // zeros are a valid value; too large to be made on the stack and moved. The box frees with the same layout.
        let stream = unsafe {
            let memory = alloc_zeroed(layout).cast::<isal_zstream>();
            if memory.is_null() {
                handle_alloc_error(layout);
            }
            Box::from_raw(memory)
        };
        Self { stream, work: vec![0; ISAL_DEF_LVL2_DEFAULT as usize] }
    }

    /// Appends `input`, deflated by itself: the result refers to nothing before it, ends on a byte and has no end.
    ///
    /// Fails with the library's code, which it never should.
    pub(super) fn deflate(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), i32> {
        let stream = &mut *self.stream;
        // SAFETY: a valid structure; the function fills it in.
        unsafe { isal_deflate_init(stream) };
        stream.level = LEVEL;
        stream.level_buf = self.work.as_mut_ptr();
        stream.level_buf_size = ISAL_DEF_LVL2_DEFAULT;
        stream.flush = FULL_FLUSH as u16;
        stream.next_in = input.as_ptr().cast_mut();
        // No block is anywhere near so long.
        stream.avail_in = u32::try_from(input.len()).map_err(|_| INVALID_PARAM)?;
        loop {
            let filled = out.len();
            out.reserve((input.len() / 3).clamp(1 << 10, 1 << 20));
            let spare = out.spare_capacity_mut();
            let room = spare.len().min(1 << 30);
            stream.next_out = spare.as_mut_ptr().cast::<u8>();
            stream.avail_out = room as u32;
            // SAFETY: the library reads `avail_in` bytes at `next_in`, which is what is left of `input`, and writes at
            // most `avail_out` bytes at `next_out`, which is spare room of `out`; it does not write to its input.
            let code = unsafe { isal_deflate(stream) };
            if code != COMP_OK as i32 {
                return Err(code);
            }
            // SAFETY: so many bytes of the room were written.
            unsafe { out.set_len(filled + room - stream.avail_out as usize) };
            if stream.avail_out > 0 {
                return Ok(());
            }
        }
    }
}
