# PostgreSQL for the tests, which reach no registry. It takes what the official image takes: PGDATA, POSTGRES_USER,
# POSTGRES_PASSWORD, POSTGRES_DB, and scripts in /docker-entrypoint-initdb.d. Its compiler (JIT) is a third of it, and left
# out: every node of the tests' cluster unpacks the image.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN groupadd --system --gid=999 postgres && useradd --system --uid=999 --gid=999 --home-dir=/var/lib/postgresql postgres \
 && apt-get update --quiet=2 \
 && mkdir -p /etc/postgresql-common && echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf \
 && apt-get install --quiet=2 --yes --no-install-recommends postgresql \
 && ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/ \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /usr/lib/llvm-* /usr/lib/*/libLLVM* /usr/lib/postgresql/*/lib/llvmjit* \
      /usr/lib/postgresql/*/lib/bitcode
COPY deploy/image/test/postgres-entrypoint /usr/local/bin/docker-entrypoint.sh
USER 999:999
STOPSIGNAL SIGINT
ENTRYPOINT ["/usr/local/bin/docker-entrypoint.sh"]
