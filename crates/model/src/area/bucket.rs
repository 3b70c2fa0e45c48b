//! An S3-compatible service: its client, and what the storage library has no call for.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use http::Method;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody, SpawnedReqwestConnector};
use object_store::path::Path as ObjectPath;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{BackoffConfig, ClientOptions, Error, MultipartId, RetryConfig};
use secrecy::ExposeSecret;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::objects::Store;
use super::timed_out;
use crate::limits;
use crate::settings::BucketSettings;

/// A bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    store: Arc<AmazonS3>,
    client: HttpClient,
}

impl Bucket {
    /// Prepares a client. All its connections belong to the runtime around this call.
    pub(super) fn open(settings: &BucketSettings) -> Result<Self, Error> {
        // Libraries that bring a provider of their own leave it to the process to choose; a second choice is no error.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = ClientOptions::new()
            .with_allow_http(settings.allow_http)
            .with_connect_timeout(limits::STORAGE_CONNECT)
            .with_timeout(limits::STORAGE_REQUEST);
        let connector = SpawnedReqwestConnector::new(Handle::current());
        let client = connector.connect(&options)?;
        let builder = match &settings.credentials {
            Some((id, secret)) => {
                AmazonS3Builder::new().with_access_key_id(id).with_secret_access_key(secret.expose_secret())
            }
            // The identity of the machine or the pod, as AWS's own variables tell it.
            None => AmazonS3Builder::from_env(),
        };
        let mut builder = builder
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_virtual_hosted_style_request(!settings.path_style)
            .with_client_options(options)
            .with_http_connector(connector)
            .with_retry(RetryConfig {
                backoff: BackoffConfig { max_backoff: limits::STORAGE_BACKOFF_MAX, ..Default::default() },
                max_retries: limits::STORAGE_RETRIES,
                retry_timeout: limits::STORAGE_RETRY,
            });
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        Ok(Self { store: Arc::new(builder.build()?), client })
    }

    pub(super) fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    /// A link to an object that works for [`limits::LINK`], and makes the service answer as this one would.
    pub(super) async fn link(&self, key: &ObjectPath, name: &str, content_type: &str) -> Result<String, Error> {
        let options = SignedUrlOptions::new().with_query([
            ("response-content-disposition", format!("attachment; filename=\"{name}\"")),
            ("response-content-type", content_type.to_owned()),
            ("response-cache-control", "no-store".to_owned()),
        ]);
        Ok(self.store.signed_url_opts(Method::GET, key, limits::LINK, &options).await?.into())
    }

    /// Finds uploads in parts that were begun so long ago (`ListMultipartUploads`, which the storage library lacks).
    pub(super) async fn uploads_older_than(
        &self,
        prefix: &str,
        age: Duration,
    ) -> Result<Vec<(ObjectPath, MultipartId)>, Error> {
        let mut found = Vec::new();
        let mut after = None;
        // Each page has up to a thousand; what is beyond these pages is found the next time.
        for _ in 0..limits::UPLOAD_PAGES {
            let page = timeout(limits::STORAGE_REQUEST, self.uploads(prefix, after.take())).await;
            let page = page.map_err(|_| timed_out())??;
            for upload in page.uploads {
                let begun = Utc::now().signed_duration_since(upload.initiated).to_std();
                if begun.is_ok_and(|begun| begun >= age) {
                    found.push((ObjectPath::from(upload.key), upload.upload_id));
                }
            }
            after = match (page.is_truncated, page.next_key, page.next_upload_id) {
                (true, Some(key), id) => Some((key, id.unwrap_or_default())),
                (true | false, _, _) => break,
            };
        }
        Ok(found)
    }

    async fn uploads(&self, prefix: &str, after: Option<(String, String)>) -> Result<Uploads, Error> {
        let mut query = vec![("uploads", String::new()), ("prefix", format!("{prefix}/"))];
        if let Some((key, id)) = after {
            query.extend([("key-marker", key), ("upload-id-marker", id)]);
        }
        let options = SignedUrlOptions::new().with_query(query);
        let root = ObjectPath::from("");
        let url = self.store.signed_url_opts(Method::GET, &root, limits::LINK, &options).await?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.as_str().parse().map_err(other)?;
        let answer = self.client.execute(request).await.map_err(other)?;
        let status = answer.status();
        if !status.is_success() {
            return Err(other(std::io::Error::other(format!("ListMultipartUploads is answered with {status}"))));
        }
        let body = answer.into_body().bytes().await.map_err(other)?;
        quick_xml::de::from_reader(body.as_ref()).map_err(other)
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Generic { store: "S3", source: Box::new(error) }
}

/// `ListMultipartUploadsResult` of the S3 API.
#[derive(Debug, Deserialize)]
struct Uploads {
    #[serde(rename = "IsTruncated", default)]
    is_truncated: bool,
    #[serde(rename = "NextKeyMarker")]
    next_key: Option<String>,
    #[serde(rename = "NextUploadIdMarker")]
    next_upload_id: Option<String>,
    #[serde(rename = "Upload", default)]
    uploads: Vec<Upload>,
}

#[derive(Debug, Deserialize)]
struct Upload {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "UploadId")]
    upload_id: String,
    #[serde(rename = "Initiated")]
    initiated: DateTime<Utc>,
}
