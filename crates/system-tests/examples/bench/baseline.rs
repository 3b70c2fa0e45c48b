//! B9's other side: a server that does the least that a status needs, one row by its primary key.

use std::net::SocketAddr;

use actix_web::{App, HttpResponse, HttpServer, web};
use model::limits;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

/// Serves until it is killed. Threads and connections are as many as the api's.
pub(crate) fn serve(address: SocketAddr, connections: u32) {
    let serving = async {
        let url = std::env::var("DATABASE_URL").expect("DATABASE_URL");
        let pool = PgPoolOptions::new().min_connections(connections).max_connections(connections);
        let pool = web::Data::new(pool.connect(&url).await.expect("a database"));
        let app = move || App::new().app_data(pool.clone()).route("/{id}", web::get().to(row));
        let server = HttpServer::new(app).workers(limits::HTTP_THREADS).bind(address).expect("a free address");
        server.run().await.expect("the server runs");
    };
    actix_web::rt::System::new().block_on(serving);
}

async fn row(id: web::Path<String>, pool: web::Data<PgPool>) -> HttpResponse {
    let query = sqlx::query_scalar::<_, String>("SELECT name FROM cell WHERE id = $1").bind(id.into_inner());
    match query.fetch_one(pool.get_ref()).await {
        Ok(name) => HttpResponse::Ok().content_type("text/plain").body(name),
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}
