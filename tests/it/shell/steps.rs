//! The shell list. Each step is run in the mount and in a plain directory; output and tree must be
//! the same. `$SRC` is the source folder; what begins with `dated` has its times compared too.

/// Before each step.
pub(super) const SETUP: &str = r#"
umask 022
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_PAGER=cat
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com GIT_AUTHOR_DATE='2020-01-01T00:00:00Z'
export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.com GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
listing() { awk 'NR > 0 && $1 != "total" && NF { print $1 ~ /^[-dl]/ ? substr($1, 1, 10) " " $3 " " $4 " " ($1 ~ /^-/ ? $5 : "") " " $6 " " $7 " " $8 : $0 }'; }
"#;

/// On files that were never sent.
pub(super) const FRESH: &[(&str, &str)] = &[
    (
        "cp",
        r#"cp "$SRC/a.txt" .; cp "$SRC/big.bin" .; cp -r "$SRC/docs" docs; cp -p "$SRC/run.sh" dated-run.sh
           cp -a "$SRC/docs" dated-docs; cp "$SRC/odd" "$SRC/empty" docs/deep/; cp a.txt inside.txt"#,
    ),
    (
        "cat",
        r#"cat a.txt inside.txt docs/deep/2.txt; cat big.bin docs/deep/odd | sha256sum; cat docs/deep/empty"#,
    ),
    ("running a file", "./dated-run.sh"),
    (
        "echo >",
        "echo one > e.txt; echo two > e.txt; cat e.txt; : > nothing; echo again > nothing; cat nothing",
    ),
    (
        "echo >>",
        "for i in 1 2 3; do echo line $i >> log.txt; done; cat log.txt; echo more >> a.txt; cat a.txt",
    ),
    (
        "a loop into one file",
        "for i in $(seq 100); do echo $i; done > loop.txt; wc -l < loop.txt; (echo x; (echo y); echo z) > sub.txt; cat sub.txt",
    ),
    (
        "dd conv=notrunc",
        r#"dd if="$SRC/patch" of=big.bin bs=5000 seek=700 conv=notrunc status=none; sha256sum < big.bin
           printf XY | dd of=a.txt bs=1 seek=3 conv=notrunc status=none; cat a.txt
           printf END | dd of=holes bs=1 seek=70000 conv=notrunc status=none; sha256sum < holes
           dd if=big.bin of=copied.bin bs=64K status=none; sha256sum < copied.bin"#,
    ),
    (
        "truncate",
        r#"cp big.bin cut.bin; truncate -s 1000 cut.bin; truncate -s 3000000 cut.bin; sha256sum < cut.bin
           truncate -s 5 e.txt; truncate -s 3 e.txt; cat e.txt; truncate -s 4096 made-by-truncate; wc -c < made-by-truncate
           cp a.txt zero; truncate -s 0 zero; wc -c < zero"#,
    ),
    (
        "mv of files",
        r#"mv e.txt moved.txt; test ! -e e.txt; cat moved.txt
           echo old > over; echo new > newer; mv newer over; cat over; test ! -e newer
           mv -n over moved.txt; cat over
           echo x > part.part; mv part.part part; cat part; mv part docs/deep/part; cat docs/deep/part"#,
    ),
    (
        "mv of directories with unsent files",
        r#"mkdir -p d1/sub/empty; echo 1 > d1/a; echo 2 > d1/sub/b; cp "$SRC/odd" d1/sub/odd
           mv d1 d2; test ! -e d1; cat d2/a d2/sub/b; sha256sum < d2/sub/odd
           mkdir onto-empty; mv -T d2 onto-empty; cat onto-empty/sub/b; mv onto-empty docs/; cat docs/onto-empty/a
           mkdir full; echo f > full/f; mkdir other; if mv -T other full 2>/dev/null; then echo moved; else echo refused; fi"#,
    ),
    (
        "rm -r",
        r#"cp -r "$SRC/docs" gone; echo x > gone/new; rm -r gone; test ! -e gone; rm nothing; test ! -e nothing
           mkdir again; echo 1 > again/f; rm -r again; mkdir again; ls -A again; echo 2 > again/f; cat again/f"#,
    ),
    (
        "mkdir and rmdir",
        r#"mkdir -p p/q/r; rmdir p/q/r; test ! -e p/q/r; if rmdir p 2>/dev/null; then echo removed; else echo refused; fi
           mkdir kept-empty; mkdir -m 700 tight; if mkdir kept-empty 2>/dev/null; then echo made; else echo refused; fi; ls -A kept-empty"#,
    ),
    (
        "ln -s",
        r#"ln -s a.txt link; ln -s /nowhere dangling; ln -s ../a.txt docs/up; ln -s docs dir-link
           readlink link dangling docs/up; cat link docs/up; ls dir-link; ln -sfn docs/deep dir-link; readlink dir-link; rm dangling"#,
    ),
    (
        "chmod",
        "chmod 600 a.txt; chmod 750 docs; chmod u+x log.txt; chmod -R go-rwx p; stat -c '%a %n' a.txt docs log.txt p p/q",
    ),
    (
        "chown",
        "cp a.txt owned; chown 1234:5678 owned; stat -c '%u %g' owned; chgrp 7 docs; stat -c %g docs",
    ),
    (
        "touch",
        r#"touch new-empty; touch -d '2001-02-03 04:05:06.789 UTC' dated-touch; touch -d @1 dated-1970
           echo x > dated-x; touch -d '2030-01-01 00:00:00 UTC' dated-x; mkdir dated-dir; touch -d '2011-11-11' dated-dir
           stat -c '%Y %n' dated-touch dated-1970 dated-x dated-dir; touch -r dated-x dated-y; stat -c %Y dated-y"#,
    ),
    ("ls -l", "ls -l --time-style=+ | listing"),
    ("ls -lR", "ls -lR --time-style=+ | listing"),
    (
        "find",
        r#"find . -printf '%P %y %m %U %G %l\n' | sort; find . -type f -printf '%P %s\n' | sort
           find . -name '*.txt' | sort; find . -type d -empty | sort; find . -type f -newermt '2029-01-01' | sort"#,
    ),
    (
        "tar x",
        r#"mkdir dated-tar; tar xf "$SRC.tar" -C dated-tar; tar df "$SRC.tar" -C dated-tar"#,
    ),
    ("tar c of the mount", "tar cf - dated-tar | tar tf - | sort"),
    (
        "rsync -a",
        r#"rsync -a "$SRC/" dated-rsync/; rsync -ai "$SRC/" dated-rsync/; rsync -aic "$SRC/" dated-rsync/
           rsync -a --inplace "$SRC/big.bin" inplace.bin; touch -d '2005-05-05' inplace.bin; rsync -a --inplace --no-W "$SRC/big.bin" inplace.bin; cmp "$SRC/big.bin" inplace.bin"#,
    ),
    (
        "git init and commit",
        r#"git init -q -b main repo; cd repo; cp "$SRC/a.txt" "$SRC/odd" .; mkdir sub; echo s > sub/s; git add .; git commit -q -m first
           git log --format='%H %s'; git status --porcelain; git fsck --no-progress; git ls-files"#,
    ),
    (
        "sqlite3",
        r#"sqlite3 t.db "create table t(id integer primary key, v text); insert into t(v) values('one'),('two');"
           sqlite3 t.db "begin; insert into t(v) select v||id from t; commit; select * from t;"; sqlite3 t.db 'pragma integrity_check'"#,
    ),
    (
        "open files",
        r#"exec 3> unlinked; echo x >&3; rm unlinked; echo y >&3; exec 3>&-; test ! -e unlinked
           exec 4> renamed-open; echo a >&4; mv renamed-open renamed; echo b >&4; exec 4>&-; cat renamed
           echo 12345 > both; exec 5<> both; read -r line <&5; echo more >&5; exec 5>&-; cat both
           sed -i 's/one/ONE/' docs/1.txt; cat docs/1.txt; sort -o loop.txt -rn loop.txt; head -2 loop.txt"#,
    ),
];

/// On files that are in the bucket.
pub(super) const ON_SENT: &[(&str, &str)] = &[
    (
        "echo >> on sent",
        "echo line 4 >> log.txt; cat log.txt; echo tail >> big.bin; tail -c 5 big.bin; sha256sum < big.bin",
    ),
    (
        "dd conv=notrunc on sent",
        r#"dd if="$SRC/patch" of=copied.bin bs=5000 seek=1200 conv=notrunc status=none; sha256sum < copied.bin
           printf Z | dd of=a.txt bs=1 seek=0 conv=notrunc status=none; cat a.txt"#,
    ),
    (
        "truncate on sent",
        r#"truncate -s 9000000 big.bin; sha256sum < big.bin; truncate -s 100 loop.txt; sha256sum < loop.txt
           truncate -s 6000000 cut.bin; sha256sum < cut.bin; truncate -s 0 log.txt; wc -c < log.txt; echo new > log.txt; cat log.txt"#,
    ),
    (
        "cp on sent",
        "cp copied.bin copied-again.bin; cmp copied.bin copied-again.bin; cp a.txt docs/a-copy.txt; cat docs/a-copy.txt; cp -a dated-docs dated-docs2",
    ),
    (
        "mv of files on sent",
        r#"mv moved.txt moved2.txt; cat moved2.txt; test ! -e moved.txt; echo fresh > fresh; mv fresh moved2.txt; cat moved2.txt
           mv copied.bin docs/copied.bin; sha256sum < docs/copied.bin; echo appended >> docs/copied.bin; mv docs/copied.bin copied.bin; tail -c 9 copied.bin
           mv over a; mv a over; cat over"#,
    ),
    (
        "mv of directories on sent",
        r#"echo unsent > docs/unsent; mv docs papers; test ! -e docs; cat papers/unsent papers/deep/2.txt papers/onto-empty/a
           ls -A papers; mkdir docs; echo other > docs/other; cat docs/other; mv papers/deep deep; cat deep/2.txt; test ! -e papers/deep
           mv dated-docs2 dated-docs3; cat dated-docs3/1.txt"#,
    ),
    (
        "rm -r on sent",
        "rm -r full; test ! -e full; rm inside.txt; test ! -e inside.txt; rm -r p; mkdir p; ls -A p; rm zero; echo z > zero; cat zero",
    ),
    (
        "rmdir on sent",
        "rmdir kept-empty; test ! -e kept-empty; rmdir tight",
    ),
    (
        "chmod, chown and touch on sent",
        r#"chmod 4755 sub.txt; chown 42:43 sub.txt; chmod 4755 sub.txt; touch -d '2000-01-01 UTC' dated-x; chmod 711 papers
           stat -c '%a %u %g %n' sub.txt papers; stat -c %Y dated-x; cat dated-x; touch -d '2012-12-12 UTC' dated-dir; stat -c %Y dated-dir"#,
    ),
    (
        "ln -s on sent",
        "ln -sf moved2.txt link; cat link; readlink link; mv link link2; cat link2",
    ),
    (
        "rsync -a on sent",
        r#"rsync -ai "$SRC/" dated-rsync/; rsync -ain --delete "$SRC/" dated-rsync/; rsync -aic "$SRC/" dated-tar/"#,
    ),
    (
        "git on sent",
        "cd repo; git status --porcelain; echo more >> a.txt; git commit -q -a -m second; git log --format='%H %s'; git fsck --no-progress; git -c pack.threads=1 gc -q; git fsck --no-progress; git log --format=%s",
    ),
    (
        "sqlite3 on sent",
        r#"sqlite3 t.db "insert into t(v) values('later'); select count(*), max(v) from t; pragma integrity_check; vacuum; select * from t;""#,
    ),
    (
        "ls -lR and find on sent",
        r#"ls -lR --time-style=+ | listing; find . -printf '%P %y %m %U %G %l\n' | sort"#,
    ),
];
