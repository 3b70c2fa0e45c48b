//! Writing the answer to PROPFIND in the form that clients of old parse: no declaration, `DAV:` as default namespace,
//! unprefixed names, indented by four spaces (the units' web client counts on the white space), the collection first.

use std::io;

use chrono::{DateTime, Utc};
use model::store::snapshots::SnapshotFile;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};
use quick_xml::{Reader, Writer};

use super::acl::{Acl, PERSONIUM, Principal};
use super::http_date;
use super::pmeta::Pmeta;

/// A multistatus document being written.
pub(crate) struct Multistatus<'a> {
    cell_url: &'a str,
    pmeta: &'a Pmeta,
    xml: Writer<Vec<u8>>,
}

type Written = io::Result<()>;

impl<'a> Multistatus<'a> {
    /// Begins a document about the area of a cell.
    pub(crate) fn new(cell_url: &'a str, pmeta: &'a Pmeta) -> Self {
        let mut xml = Writer::new_with_indent(Vec::new(), b' ', 4);
        let mut start = BytesStart::new("multistatus");
        start.push_attribute(("xmlns", "DAV:"));
        infallible(xml.write_event(Event::Start(start)));
        Self { cell_url, pmeta, xml }
    }

    /// Adds the area itself.
    pub(crate) fn area(&mut self) {
        let href = format!("{}__snapshot", self.cell_url);
        let (cell_url, pmeta) = (self.cell_url, self.pmeta);
        self.response(&href, |xml| {
            text(xml, "creationdate", &creation_date(pmeta.created))?;
            text(xml, "getlastmodified", &http_date(pmeta.updated))?;
            xml.create_element("resourcetype").write_inner_content(|xml| empty(xml, "collection"))?;
            xml.create_element("p:cellstatus")
                .with_attribute(("xmlns:p", PERSONIUM))
                .write_text_content(BytesText::new(&pmeta.status))?;
            acl(xml, &pmeta.acl, cell_url, false)?;
            pmeta.properties.iter().try_for_each(|property| copy(xml, property))
        });
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, file: &SnapshotFile) {
        let href = format!("{}__snapshot/{}", self.cell_url, file.name);
        let (cell_url, pmeta) = (self.cell_url, self.pmeta);
        self.response(&href, |xml| {
            text(xml, "creationdate", &creation_date(file.created_at))?;
            text(xml, "getcontentlength", &file.size.to_string())?;
            match &file.content_type {
                Some(kind) => text(xml, "getcontenttype", kind)?,
                None => empty(xml, "getcontenttype")?,
            }
            text(xml, "getlastmodified", &http_date(file.modified_at))?;
            empty(xml, "resourcetype")?;
            acl(xml, &pmeta.acl, cell_url, true)
        });
    }

    /// Ends the document.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        infallible(self.xml.write_event(Event::End(BytesEnd::new("multistatus"))));
        self.xml.into_inner()
    }

    fn response(&mut self, href: &str, properties: impl FnOnce(&mut Writer<Vec<u8>>) -> Written) {
        let written = self.xml.create_element("response").write_inner_content(|xml| {
            text(xml, "href", href)?;
            xml.create_element("propstat").write_inner_content(|xml| {
                xml.create_element("prop").write_inner_content(properties)?;
                text(xml, "status", "HTTP/1.1 200 OK")
            })?;
            Ok(())
        });
        infallible(written.map(|_| ()));
    }
}

/// Writing to memory does not fail.
fn infallible(written: Written) {
    debug_assert!(written.is_ok());
}

fn text(xml: &mut Writer<Vec<u8>>, name: &str, value: &str) -> Written {
    xml.create_element(name).write_text_content(BytesText::new(value)).map(|_| ())
}

fn empty(xml: &mut Writer<Vec<u8>>, name: &str) -> Written {
    xml.create_element(name).write_empty().map(|_| ())
}

fn creation_date(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string()
}

/// Writes an ACL. All entries of a file come from its cell.
fn acl(xml: &mut Writer<Vec<u8>>, acl: &Acl, cell_url: &str, inherited: bool) -> Written {
    let base = format!("{cell_url}__role/__/");
    let mut element =
        xml.create_element("acl").with_attribute(("xml:base", base.as_str())).with_attribute(("xmlns:p", PERSONIUM));
    if let Some(require) = &acl.require_schema {
        element = element.with_attribute(("p:requireSchemaAuthz", require.as_str()));
    }
    if acl.entries.is_empty() {
        return element.write_empty().map(|_| ());
    }
    element.write_inner_content(|xml| {
        for entry in &acl.entries {
            xml.create_element("ace").write_inner_content(|xml| {
                xml.create_element("principal").write_inner_content(|xml| match &entry.principal {
                    Principal::All => empty(xml, "all"),
                    Principal::Role(href) | Principal::Href(href) => text(xml, "href", href),
                })?;
                xml.create_element("grant").write_inner_content(|xml| {
                    entry.privileges.iter().try_for_each(|privilege| {
                        xml.create_element("privilege")
                            .write_inner_content(|xml| {
                                let element = xml.create_element(privilege.name.as_str());
                                let element = match privilege.is_dav {
                                    true => element,
                                    false => element.with_attribute(("xmlns", PERSONIUM)),
                                };
                                element.write_empty().map(|_| ())
                            })
                            .map(|_| ())
                    })
                })?;
                if inherited {
                    xml.create_element("inherited").write_inner_content(|xml| text(xml, "href", cell_url))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    })?;
    Ok(())
}

/// Copies a stored element, if it is one: a damaged property must not damage the document.
fn copy(xml: &mut Writer<Vec<u8>>, element: &str) -> Written {
    match events(element) {
        Some(events) => events.into_iter().try_for_each(|event| xml.write_event(event)),
        None => Ok(()),
    }
}

fn events(element: &str) -> Option<Vec<Event<'_>>> {
    let mut reader = Reader::from_str(element);
    let (mut events, mut depth) = (Vec::new(), 0);
    loop {
        let event = reader.read_event().ok()?;
        match &event {
            Event::Start(_) | Event::Empty(_) if depth == 0 && !events.is_empty() => return None,
            Event::Start(start) => {
                depth += 1;
                start.attributes().all(|a| a.is_ok()).then_some(())?;
            }
            Event::Empty(start) => start.attributes().all(|a| a.is_ok()).then_some(())?,
            Event::End(_) => depth -= 1,
            Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) if depth > 0 => {}
            Event::Eof => return (depth == 0 && !events.is_empty()).then_some(events),
            Event::Text(_)
            | Event::CData(_)
            | Event::GeneralRef(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::DocType(_) => return None,
        }
        events.push(event);
    }
}

#[cfg(test)]
mod tests {
    use model::snapshot_name::SnapshotFileName;
    use model::store::snapshots::Content;

    use super::*;

    #[test]
    fn the_document_is_the_one_clients_know() {
        let pmeta = Pmeta::parse(
            r#"{"p":1640995200000,"u":1640995201000,"v":3,"cs":"normal","a":{"D.ace":[{"D.principal":{"D.all":{}},
               "D.grant":{"D.privilege":[{"p.root":{}},{"D.read":{}}]}}]},
               "d":{"x@urn:y":"<y:x xmlns:y=\"urn:y\">a &amp; b</y:x>","bad@z":"<z>","worse@z":"x"}}"#,
        );
        let mut document = Multistatus::new("http://unit/cell<1>/", &pmeta);
        document.area();
        document.file(&SnapshotFile {
            name: SnapshotFileName::parse("one.zip").expect("a legal name"),
            version: 1,
            created_at: pmeta.created,
            modified_at: pmeta.updated,
            size: 42,
            sha256: vec![0; 32],
            content_type: Some("application/zip".to_owned()),
            content: Content::Blob("k".to_owned()),
        });
        let text = String::from_utf8(document.finish()).expect("UTF-8");
        let expected = r#"<multistatus xmlns="DAV:">
    <response>
        <href>http://unit/cell&lt;1&gt;/__snapshot</href>
        <propstat>
            <prop>
                <creationdate>2022-01-01T00:00:00.000+0000</creationdate>
                <getlastmodified>Sat, 01 Jan 2022 00:00:01 GMT</getlastmodified>
                <resourcetype>
                    <collection/>
                </resourcetype>
                <p:cellstatus xmlns:p="urn:x-personium:xmlns">normal</p:cellstatus>
                <acl xml:base="http://unit/cell&lt;1&gt;/__role/__/" xmlns:p="urn:x-personium:xmlns">
                    <ace>
                        <principal>
                            <all/>
                        </principal>
                        <grant>
                            <privilege>
                                <root xmlns="urn:x-personium:xmlns"/>
                            </privilege>
                            <privilege>
                                <read/>
                            </privilege>
                        </grant>
                    </ace>
                </acl>
                <y:x xmlns:y="urn:y">a &amp; b</y:x>
            </prop>
            <status>HTTP/1.1 200 OK</status>
        </propstat>
    </response>
    <response>
        <href>http://unit/cell&lt;1&gt;/__snapshot/one.zip</href>
        <propstat>
            <prop>
                <creationdate>2022-01-01T00:00:00.000+0000</creationdate>
                <getcontentlength>42</getcontentlength>
                <getcontenttype>application/zip</getcontenttype>
                <getlastmodified>Sat, 01 Jan 2022 00:00:01 GMT</getlastmodified>
                <resourcetype/>
                <acl xml:base="http://unit/cell&lt;1&gt;/__role/__/" xmlns:p="urn:x-personium:xmlns">
                    <ace>
                        <principal>
                            <all/>
                        </principal>
                        <grant>
                            <privilege>
                                <root xmlns="urn:x-personium:xmlns"/>
                            </privilege>
                            <privilege>
                                <read/>
                            </privilege>
                        </grant>
                        <inherited>
                            <href>http://unit/cell&lt;1&gt;/</href>
                        </inherited>
                    </ace>
                </acl>
            </prop>
            <status>HTTP/1.1 200 OK</status>
        </propstat>
    </response>
</multistatus>"#;
        assert_eq!(text, expected);
    }
}
