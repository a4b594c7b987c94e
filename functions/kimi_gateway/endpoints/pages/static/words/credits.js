export default {
  en: { "credits.title": "credits" },
  zh: { "credits.title": "credits" },
};
