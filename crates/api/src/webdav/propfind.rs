//! Reading a PROPFIND: its body, then its depth. Whatever the body asks for, all properties are returned.

use actix_web::web::Payload;
use model::error_code::ErrorCode;
use model::limits;
use quick_xml::NsReader;
use quick_xml::events::Event;
use quick_xml::name::ResolveResult;

use crate::body;
use crate::common::incoming::Incoming;
use crate::error::ApiError;

/// How deep to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    Zero,
    One,
}

/// Reads the request.
///
/// # Errors
/// 400 PR400-DV-0001 for a body that is no `propfind`, then 400 PR400-DV-0003 or 403 for a depth.
pub(crate) async fn read(request: &Incoming, payload: &mut Payload) -> Result<Depth, ApiError> {
    let announced = request.header("content-length").is_some_and(|n| n.trim() != "0")
        || request.headers.contains_key("transfer-encoding");
    if announced {
        let body = body::read(payload, limits::XML_BODY).await?;
        check(&body).map_err(|NotPropfind| ErrorCode::XmlParse)?;
    }
    match request.header("depth") {
        Some("0") => Ok(Depth::Zero),
        Some("1") => Ok(Depth::One),
        Some("infinity") => Err(ErrorCode::InfiniteDepth.into()),
        other => Err(ApiError::with(ErrorCode::Depth, &[other.unwrap_or("null")])),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct NotPropfind;

/// Accepts a well-formed document whose root is `{DAV:}propfind`, of bounded depth and size. Document types and
/// processing instructions are refused: nobody needs them here, and entities are a way to attack.
fn check(body: &[u8]) -> Result<(), NotPropfind> {
    let text = std::str::from_utf8(body).map_err(|_| NotPropfind)?;
    let mut reader = NsReader::from_str(text);
    let (mut depth, mut elements, mut seen) = (0, 0, false);
    loop {
        let (namespace, event) = reader.read_resolved_event().map_err(|_| NotPropfind)?;
        let opens = matches!(event, Event::Start(_));
        match event {
            Event::Start(element) | Event::Empty(element) => {
                elements += 1;
                let is_dav = matches!(namespace, ResolveResult::Bound(ns) if ns.as_ref() == "DAV:");
                let is_root = depth == 0;
                if is_root && (seen || !is_dav || element.local_name().as_ref() != "propfind") {
                    return Err(NotPropfind);
                }
                seen = true;
                depth += usize::from(opens);
                if depth > limits::XML_DEPTH || elements > limits::XML_ELEMENTS {
                    return Err(NotPropfind);
                }
                if element.attributes().any(|a| a.is_err()) {
                    return Err(NotPropfind);
                }
            }
            Event::End(_) => depth = depth.checked_sub(1).ok_or(NotPropfind)?,
            Event::Text(text) if depth == 0 => {
                if !text.bytes().all(|b| b.is_ascii_whitespace()) {
                    return Err(NotPropfind);
                }
            }
            Event::Text(_) | Event::CData(_) | Event::Comment(_) | Event::Decl(_) => {}
            Event::GeneralRef(_) if depth > 0 => {}
            Event::GeneralRef(_) | Event::DocType(_) | Event::PI(_) => return Err(NotPropfind),
            Event::Eof => return if seen && depth == 0 { Ok(()) } else { Err(NotPropfind) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_propfind_document_passes() {
        for good in [
            "<propfind xmlns='DAV:'/>",
            "<?xml version='1.0'?>\n<D:propfind xmlns:D='DAV:'><D:allprop/></D:propfind>\n",
            "<propfind xmlns='DAV:'><prop><x xmlns='urn:y' a='b'>text</x></prop></propfind>",
        ] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            "",
            " ",
            "x",
            "<propfind/>",
            "<propfind xmlns='DAV:'>",
            "<propfind xmlns='DAV:'></x>",
            "<propfind xmlns='DAV:'/><propfind xmlns='DAV:'/>",
            "<prop xmlns='DAV:'/>",
            "<?evil x?><propfind xmlns='DAV:'/>",
            "<!DOCTYPE p [<!ENTITY a SYSTEM 'file:///x'>]><propfind xmlns='DAV:'>&a;</propfind>",
            "<propfind xmlns='DAV:' a='1' a='2'/>",
        ] {
            assert_eq!(check(bad.as_bytes()), Err(NotPropfind), "{bad}");
        }
        assert_eq!(check(b"<propfind xmlns='DAV:'>\xff</propfind>"), Err(NotPropfind));
    }
}
