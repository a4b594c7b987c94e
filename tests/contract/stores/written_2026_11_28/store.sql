BEGIN TRANSACTION;
CREATE TABLE accounts (
            id TEXT PRIMARY KEY, name TEXT NOT NULL, unlimited INTEGER NOT NULL, created INTEGER NOT NULL,
            generation INTEGER NOT NULL DEFAULT 0, grants TEXT NOT NULL, spendable INTEGER NOT NULL,
            consumed INTEGER NOT NULL, expired INTEGER NOT NULL, budgets TEXT NOT NULL DEFAULT '', CHECK (spendable >= 0)
        ) WITHOUT ROWID
        ;
INSERT INTO "accounts" VALUES('acc_ponmlkjihg','free',1,1799971201,0,'',0,0,0,'');
INSERT INTO "accounts" VALUES('acc_tsrqponmlk','team',0,1799971200,4,'1800971200:100 9999999999:50',145,3,0,'usd/month:1000000');
CREATE TABLE bad_news (
            token TEXT NOT NULL, model TEXT NOT NULL, cause TEXT NOT NULL, until INTEGER NOT NULL,
            PRIMARY KEY (token, model)
        ) WITHOUT ROWID
        ;
CREATE TABLE files (
            account TEXT NOT NULL, id TEXT NOT NULL, token TEXT NOT NULL, kind TEXT NOT NULL,
            created INTEGER NOT NULL, expires INTEGER NOT NULL, state TEXT NOT NULL, upstream TEXT NOT NULL,
            filename TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL, purpose TEXT NOT NULL,
            detail TEXT NOT NULL, uploaded_as TEXT NOT NULL DEFAULT '', PRIMARY KEY (account, id)
        ) WITHOUT ROWID
        ;
INSERT INTO "files" VALUES('acc_tsrqponmlk','file-1','tok_1','kept',1799971200,1800971200,'ready','up-1','a.pdf',9,'application/pdf','user_data','','file-extract');
CREATE TABLE keys (
            id TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, account TEXT NOT NULL, name TEXT NOT NULL,
            rpm INTEGER, rph INTEGER, rpd INTEGER, see_balance INTEGER NOT NULL,
            revoked INTEGER NOT NULL DEFAULT 0, created INTEGER NOT NULL,
            minute INTEGER NOT NULL DEFAULT 0, in_minute INTEGER NOT NULL DEFAULT 0,
            hour INTEGER NOT NULL DEFAULT 0, in_hour INTEGER NOT NULL DEFAULT 0,
            day INTEGER NOT NULL DEFAULT 0, in_day INTEGER NOT NULL DEFAULT 0
        , minute_rank INTEGER NOT NULL DEFAULT 3, hour_rank INTEGER NOT NULL DEFAULT 3, day_rank INTEGER NOT NULL DEFAULT 3, models TEXT NOT NULL DEFAULT '', expires INTEGER NOT NULL DEFAULT 9999999999, note TEXT NOT NULL DEFAULT '', suspended INTEGER NOT NULL DEFAULT 0, old_digest TEXT, old_until INTEGER NOT NULL DEFAULT 0, budgets TEXT NOT NULL DEFAULT '') WITHOUT ROWID
        ;
INSERT INTO "keys" VALUES('key_9876543210','d2','acc_tsrqponmlk','gone',NULL,NULL,NULL,0,1,1799971200,0,0,0,0,0,0,3,3,3,'',9999999999,'',0,NULL,0,'');
INSERT INTO "keys" VALUES('key_fedcba9876','d3','acc_ponmlkjihg','',NULL,NULL,NULL,0,0,1799971201,29999520,1,499992,1,20833,1,0,0,0,'',9999999999,'',0,NULL,0,'');
INSERT INTO "keys" VALUES('key_jihgfedcba','d1-new','acc_tsrqponmlk','laptop',5,50,NULL,1,0,1799971200,29999640,3,499994,3,20833,5,1,1,1,'kimi-* own',1809971200,'a note',0,'d1',1800971200,'usd/day:400 tokens/total:1000000');
INSERT INTO "keys" VALUES('key_zyxwvutsrq','d4','acc_tsrqponmlk','off',NULL,NULL,NULL,0,0,1799971200,0,0,0,0,0,0,3,3,3,'',9999999999,'',1,NULL,0,'');
CREATE TABLE leases (
            account TEXT NOT NULL, request TEXT NOT NULL, cost INTEGER NOT NULL, expires INTEGER NOT NULL, output INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (account, request)
        ) WITHOUT ROWID
        ;
INSERT INTO "leases" VALUES('acc_tsrqponmlk','in flight',2,1799979060,40);
CREATE TABLE replay (
            id INTEGER PRIMARY KEY, account TEXT NOT NULL, name TEXT NOT NULL, until INTEGER NOT NULL,
            size INTEGER NOT NULL, value BLOB NOT NULL, UNIQUE (account, name)
        );
INSERT INTO "replay" VALUES(1,'acc_tsrqponmlk','resp_1',1800057600,132,X'6B657074');
CREATE TABLE spent (
            account TEXT NOT NULL, scope TEXT NOT NULL, unit TEXT NOT NULL, period TEXT NOT NULL,
            bucket INTEGER NOT NULL, amount INTEGER NOT NULL,
            PRIMARY KEY (account, scope, unit, period, bucket)
        ) WITHOUT ROWID
        ;
INSERT INTO "spent" VALUES('acc_tsrqponmlk','','usd','month',24324,200);
INSERT INTO "spent" VALUES('acc_tsrqponmlk','key_jihgfedcba','tokens','total',0,200);
INSERT INTO "spent" VALUES('acc_tsrqponmlk','key_jihgfedcba','usd','day',20833,200);
CREATE TABLE usage (
            hour INTEGER NOT NULL, account TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,
            requests INTEGER NOT NULL, errors INTEGER NOT NULL, input INTEGER NOT NULL,
            output INTEGER NOT NULL, credits INTEGER NOT NULL, last INTEGER NOT NULL,
            PRIMARY KEY (hour, account, key, model)
        ) WITHOUT ROWID
        ;
INSERT INTO "usage" VALUES(1799971200,'acc_ponmlkjihg','key_fedcba9876','kimi-k2',1,0,1,0,0,1799971200);
INSERT INTO "usage" VALUES(1799971200,'acc_tsrqponmlk','key_jihgfedcba','kimi-k3',1,0,7,11,1,1799971200);
INSERT INTO "usage" VALUES(1799974800,'acc_tsrqponmlk','key_jihgfedcba','kimi-k3',1,0,7,11,1,1799974800);
INSERT INTO "usage" VALUES(1799978400,'acc_tsrqponmlk','key_jihgfedcba','kimi-k3',1,1,7,11,1,1799978400);
CREATE INDEX replay_age ON replay (until, size);
CREATE INDEX replay_sizes ON replay (account, until, size);
CREATE INDEX keys_old_digest ON keys (old_digest);
CREATE INDEX files_due ON files (expires);
COMMIT;
PRAGMA user_version = 8;
